// @vitest-environment node
import { readFileSync } from 'node:fs'

import openapi, { astToString } from 'openapi-typescript'
import { expect, test } from 'vitest'

import { cluster } from '../test/node.ts'
import { clusterStatus, problem } from './parse.ts'

test('schema.ts is what the API description says', async () => {
  const description = new URL('../../../node/admin-api/openapi.json', import.meta.url)
  const generated = astToString(await openapi(description))
  const written = readFileSync(new URL('./schema.ts', import.meta.url), 'utf8')
  expect(written.slice(written.indexOf('export interface')), 'run `npm run generate`').toBe(generated)
})

test('what the console does not know is dropped, what it needs is missed', () => {
  const good = cluster()
  expect(clusterStatus.parse({ ...good, invented: 1 })).toEqual(good)
  const { level, ...rest } = good
  expect(level.requested).toBe('+2d:1n')
  expect(clusterStatus.safeParse(rest).success).toBe(false)
  const unknownState = { ...good, nodes: [{ ...good.nodes[0], state: { kind: 'sleeping' } }] }
  expect(clusterStatus.safeParse(unknownState).success).toBe(false)
})

test('capacities beyond 2^53 bytes are accepted', () => {
  const capacity = { raw_bytes: 2 ** 59, used_bytes: 1, free_bytes: 2 ** 58, reserved_bytes: 0, spare_drives: 0 }
  expect(clusterStatus.safeParse(cluster({ capacity })).success).toBe(true)
})

test('a problem may lack its hint', () => {
  expect(problem.safeParse({ type: 't', title: 'x', status: 409, detail: 'd' }).success).toBe(true)
})
