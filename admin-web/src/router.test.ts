import { expect, test } from 'vitest'

import { type Page, pageOf, pathOf } from './router.ts'

test('every page is found again by its path', () => {
  const pages: Page[] = [
    { kind: 'overview' },
    { kind: 'nodes' },
    { kind: 'node', name: 'n1' },
    { kind: 'node', name: 'a/b %' },
    { kind: 'tenants' },
    { kind: 'join' },
    { kind: 'missing', path: '/none/such' },
  ]
  for (const page of pages) expect(pageOf(pathOf(page))).toEqual(page)
})

test('other paths are missing', () => {
  for (const path of ['/nodes/a/b', '/tenants/x', '/other']) expect(pageOf(path)).toEqual({ kind: 'missing', path })
  expect(pageOf('/nodes/%zz')).toEqual({ kind: 'node', name: '%zz' })
})
