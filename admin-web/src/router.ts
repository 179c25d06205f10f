// Pages and their paths. The server answers every one of them with the same document.
import { createContext, use, useCallback, useEffect, useState } from 'react'

import { unreachable } from './unreachable.ts'

export type Page =
  | { kind: 'overview' }
  | { kind: 'nodes' }
  | { kind: 'node'; name: string }
  | { kind: 'tenants' }
  | { kind: 'join' }
  | { kind: 'missing'; path: string }

export function pathOf(page: Page): string {
  switch (page.kind) {
    case 'overview':
      return '/'
    case 'nodes':
      return '/nodes'
    case 'node':
      return `/nodes/${encodeURIComponent(page.name)}`
    case 'tenants':
      return '/tenants'
    case 'join':
      return '/join'
    case 'missing':
      return page.path
    default:
      return unreachable(page)
  }
}

export function pageOf(path: string): Page {
  const [first, second, ...rest] = path.split('/').filter((part) => part !== '')
  const missing: Page = { kind: 'missing', path }
  if (rest.length > 0) return missing
  if (first === undefined) return { kind: 'overview' }
  if (first === 'nodes' && second !== undefined) return { kind: 'node', name: decoded(second) }
  if (second !== undefined) return missing
  if (first === 'nodes' || first === 'tenants' || first === 'join') return { kind: first }
  return missing
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

type Navigation = { page: Page; go: (page: Page) => void }

export const NavigationContext = createContext<Navigation>({ page: { kind: 'overview' }, go: () => undefined })

export function useNavigation(): Navigation {
  return use(NavigationContext)
}

/** The page of the address bar, and the way to another. */
export function useAddressBar(): Navigation {
  const [page, setPage] = useState(() => pageOf(window.location.pathname))
  useEffect(() => {
    const follow = () => {
      setPage(pageOf(window.location.pathname))
    }
    window.addEventListener('popstate', follow)
    return () => {
      window.removeEventListener('popstate', follow)
    }
  }, [])
  const go = useCallback((next: Page) => {
    window.history.pushState(null, '', pathOf(next))
    setPage(next)
    window.scrollTo(0, 0)
  }, [])
  return { page, go }
}
