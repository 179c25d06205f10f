// The frame of every page: where one is, who one is, and how fresh the picture is.
import { type ReactNode, useState } from 'react'

import type { ClusterStatus, SessionInfo } from '../api/types.ts'
import type { Live } from '../live.ts'
import { type Page, useNavigation } from '../router.ts'
import { applyTheme, storedTheme, type Theme } from '../theme.ts'
import { Link } from './link.tsx'
import { LiveMark } from './live-mark.tsx'

const PAGES: { page: Page; label: string }[] = [
  { page: { kind: 'overview' }, label: 'Overview' },
  { page: { kind: 'nodes' }, label: 'Nodes and drives' },
  { page: { kind: 'tenants' }, label: 'Tenants' },
  { page: { kind: 'join' }, label: 'Add a node' },
]

export function Brand() {
  return (
    <span className="brand">
      <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
        <g fill="none" stroke="currentColor" strokeWidth="2.8" strokeLinecap="round">
          <path d="M16 5v22" />
          <path d="M6 16c0 6 4 11 10 11s10-5 10-11" />
          <path d="M10.5 10h11" />
        </g>
      </svg>
      Holdfast
    </span>
  )
}

export function Shell(props: {
  session: SessionInfo
  live: Live<ClusterStatus>
  onLogout: () => void
  children: ReactNode
}) {
  const { session, live, onLogout, children } = props
  const { page } = useNavigation()
  const name = live.kind === 'ready' || live.kind === 'stale' ? live.value.name : ''
  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <header className="top">
        <Brand />
        <span className="cluster-name">{name}</span>
        <LiveMark live={live} />
        <span className="top-end">
          <span className="who">
            <strong>{session.user}</strong> <span className="muted">{session.role} via {session.node}</span>
          </span>
          <ThemeChoice />
          <button type="button" className="quiet" onClick={onLogout}>
            Log out
          </button>
        </span>
      </header>
      <nav aria-label="Pages">
        <ul>
          {PAGES.map((entry) => (
            <li key={entry.label}>
              <Link to={entry.page} current={isWithin(page, entry.page)}>
                {entry.label}
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
    </div>
  )
}

function isWithin(page: Page, entry: Page): boolean {
  return page.kind === entry.kind || (page.kind === 'node' && entry.kind === 'nodes')
}

const THEMES: { theme: Theme; label: string }[] = [
  { theme: 'system', label: 'System colours' },
  { theme: 'light', label: 'Light' },
  { theme: 'dark', label: 'Dark' },
]

function ThemeChoice() {
  const [theme, setTheme] = useState(storedTheme)
  return (
    <select
      aria-label="Colours"
      className="quiet"
      value={theme}
      onChange={(event) => {
        const chosen = THEMES.find((entry) => entry.theme === event.target.value)?.theme ?? 'system'
        setTheme(chosen)
        applyTheme(chosen)
      }}
    >
      {THEMES.map((entry) => (
        <option key={entry.theme} value={entry.theme}>
          {entry.label}
        </option>
      ))}
    </select>
  )
}
