// Who is logged in decides between the login and the pages.
import { useCallback, useEffect, useState } from 'react'

import * as client from './api/client.ts'
import { type Failure, failureOf } from './api/failure.ts'
import type { ClusterStatus, SessionInfo } from './api/types.ts'
import { Link } from './components/link.tsx'
import { Empty, FailureNotice, Loading } from './components/notice.tsx'
import { PageHead } from './components/page-head.tsx'
import { Shell } from './components/shell.tsx'
import { useLive } from './live.ts'
import { JoinPage } from './pages/join.tsx'
import { LoginPage } from './pages/login.tsx'
import { NodePage, NodesPage } from './pages/nodes.tsx'
import { OverviewPage } from './pages/overview.tsx'
import { TenantsPage } from './pages/tenants.tsx'
import { NavigationContext, type Page, useAddressBar, useNavigation } from './router.ts'
import { unreachable } from './unreachable.ts'

type Account =
  | { kind: 'checking' }
  | { kind: 'unknown'; failure: Failure }
  | { kind: 'out'; note: string | null }
  | { kind: 'in'; session: SessionInfo }

export function App() {
  const [account, setAccount] = useState<Account>({ kind: 'checking' })
  const navigation = useAddressBar()
  const check = useCallback((signal?: AbortSignal) => {
    client.session(signal).then(
      (session) => {
        setAccount({ kind: 'in', session })
      },
      (error: unknown) => {
        if (signal?.aborted === true) return
        const failure = failureOf(error)
        setAccount(failure.kind === 'session-over' ? { kind: 'out', note: null } : { kind: 'unknown', failure })
      },
    )
  }, [])
  useEffect(() => {
    const stop = new AbortController()
    check(stop.signal)
    return () => {
      stop.abort()
    }
  }, [check])
  const onSessionOver = useCallback(() => {
    setAccount({ kind: 'out', note: 'The session is over. Log in again.' })
  }, [])

  switch (account.kind) {
    case 'checking':
      return <Loading what="the console" />
    case 'unknown':
      return (
        <main className="login">
          <FailureNotice failure={account.failure} onRetry={check} />
        </main>
      )
    case 'out':
      return (
        <LoginPage
          note={account.note}
          onLogin={(session) => {
            setAccount({ kind: 'in', session })
          }}
        />
      )
    case 'in':
      return (
        <NavigationContext value={navigation}>
          <Console
            session={account.session}
            onSessionOver={onSessionOver}
            onLogout={() => void logout().then(setAccount)}
          />
        </NavigationContext>
      )
    default:
      return unreachable(account)
  }
}

async function logout(): Promise<Account> {
  try {
    await client.logout()
    return { kind: 'out', note: null }
  } catch (error) {
    if (failureOf(error).kind === 'session-over') return { kind: 'out', note: null }
    return { kind: 'out', note: 'The node did not confirm the logout: the session may last until it expires.' }
  }
}

type ConsoleProps = { session: SessionInfo; onSessionOver: () => void; onLogout: () => void }

function Console({ session, onSessionOver, onLogout }: ConsoleProps) {
  const [live, again] = useLive(client.cluster, onSessionOver)
  const { page } = useNavigation()
  return (
    <Shell session={session} live={live} onLogout={onLogout}>
      {live.kind === 'loading' ? <Loading what="the cluster" /> : null}
      {live.kind === 'failed' ? <FailureNotice failure={live.failure} onRetry={again} /> : null}
      {live.kind === 'ready' || live.kind === 'stale' ? (
        <div className={live.kind === 'stale' ? 'stale' : undefined}>
          <PageContent page={page} cluster={live.value} session={session} onSessionOver={onSessionOver} />
        </div>
      ) : null}
    </Shell>
  )
}

function PageContent(props: { page: Page; cluster: ClusterStatus; session: SessionInfo; onSessionOver: () => void }) {
  const { page, cluster, session, onSessionOver } = props
  switch (page.kind) {
    case 'overview':
      return <OverviewPage cluster={cluster} />
    case 'nodes':
      return <NodesPage cluster={cluster} session={session} onSessionOver={onSessionOver} />
    case 'node':
      return <NodePage cluster={cluster} name={page.name} session={session} onSessionOver={onSessionOver} />
    case 'tenants':
      return <TenantsPage session={session} onSessionOver={onSessionOver} />
    case 'join':
      return <JoinPage cluster={cluster} session={session} onSessionOver={onSessionOver} />
    case 'missing':
      return (
        <>
          <PageHead title="No such page" />
          <Empty title={`There is no page at ${page.path}.`}>
            <p>
              <Link to={{ kind: 'overview' }}>Overview</Link>
            </p>
          </Empty>
        </>
      )
    default:
      return unreachable(page)
  }
}
