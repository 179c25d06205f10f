import { type SubmitEvent, useState } from 'react'

import * as client from '../api/client.ts'
import { type Failure, failureOf } from '../api/failure.ts'
import type { SessionInfo } from '../api/types.ts'
import { FailureNotice } from '../components/notice.tsx'
import { PageHead } from '../components/page-head.tsx'
import { Brand } from '../components/shell.tsx'

type Attempt = { kind: 'idle' } | { kind: 'checking' } | { kind: 'failed'; failure: Failure }

export function LoginPage({ note, onLogin }: { note: string | null; onLogin: (session: SessionInfo) => void }) {
  const [attempt, setAttempt] = useState<Attempt>({ kind: 'idle' })
  const [user, setUser] = useState('')
  const [password, setPassword] = useState('')
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    setAttempt({ kind: 'checking' })
    try {
      onLogin(await client.login(user, password))
    } catch (error) {
      setPassword('')
      setAttempt({ kind: 'failed', failure: failureOf(error) })
    }
  }
  return (
    <main className="login">
      <form onSubmit={(event) => void submit(event)} aria-label="Log in">
        <Brand />
        <PageHead title="Log in" />
        {note !== null && attempt.kind === 'idle' ? (
          <p className="notice" role="status">
            {note}
          </p>
        ) : null}
        {attempt.kind === 'failed' ? <FailureNotice failure={attempt.failure} /> : null}
        <label>
          User
          <input
            value={user}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            required
            maxLength={64}
            onChange={(event) => {
              setUser(event.target.value)
            }}
          />
        </label>
        <label>
          Password
          <input
            type="password"
            value={password}
            autoComplete="current-password"
            required
            onChange={(event) => {
              setPassword(event.target.value)
            }}
          />
        </label>
        <button type="submit" className="primary" disabled={attempt.kind === 'checking'}>
          {attempt.kind === 'checking' ? 'Checking…' : 'Log in'}
        </button>
        <p className="muted small">Every login and every change is recorded.</p>
      </form>
    </main>
  )
}
