import type { MouseEvent, ReactNode } from 'react'

import { type Page, pathOf, useNavigation } from '../router.ts'

/** A real link, so that it opens in a new tab when asked to. */
export function Link({ to, current = false, children }: { to: Page; current?: boolean; children: ReactNode }) {
  const { go } = useNavigation()
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    go(to)
  }
  return (
    <a href={pathOf(to)} onClick={follow} aria-current={current ? 'page' : undefined}>
      {children}
    </a>
  )
}
