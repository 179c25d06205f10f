import { type SubmitEvent, useState } from 'react'

import * as client from '../api/client.ts'
import { type Failure, failureOf } from '../api/failure.ts'
import type { ClusterStatus, JoinToken, SessionInfo } from '../api/types.ts'
import { whyNot } from '../capabilities.ts'
import { FailureNotice } from '../components/notice.tsx'
import { PageHead } from '../components/page-head.tsx'
import { Panel } from '../components/panel.tsx'
import { CopyButton, SecretCard } from '../components/secret.tsx'
import { useNow } from '../live.ts'
import { duration, moment } from '../units.ts'

type Made = { kind: 'nothing' } | { kind: 'working' } | { kind: 'token'; token: JoinToken } | { kind: 'failed'; failure: Failure }

const VALID_FOR_SECONDS = [900, 3600, 14_400, 86_400]

export function JoinPage(props: { cluster: ClusterStatus; session: SessionInfo; onSessionOver: () => void }) {
  const { cluster, session, onSessionOver } = props
  const [made, setMade] = useState<Made>({ kind: 'nothing' })
  const [seconds, setSeconds] = useState(900)
  const denied = whyNot(session.role, 'add nodes')
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    setMade({ kind: 'working' })
    try {
      setMade({ kind: 'token', token: await client.createJoinToken(seconds) })
    } catch (error) {
      const failure = failureOf(error)
      if (failure.kind === 'session-over') onSessionOver()
      else setMade({ kind: 'failed', failure })
    }
  }
  return (
    <>
      <PageHead title="Add a node" />
      {made.kind === 'failed' ? <FailureNotice failure={made.failure} /> : null}
      {made.kind === 'token' ? (
        <TokenCard
          token={made.token}
          peers={peersOf(cluster)}
          onDone={() => {
            setMade({ kind: 'nothing' })
          }}
        />
      ) : null}
      <Panel title="Make a join token">
        <div className="inset prose">
          <p>
            A join token lets one machine become a node of <strong>{cluster.name}</strong>, once. It holds the fingerprint
            of the cluster&rsquo;s authority, so that the new node also knows whom it joins. Whoever has it can bring a
            machine in: hand it over as you would a password.
          </p>
          {denied === null ? (
            <form className="row-form" onSubmit={(event) => void submit(event)} aria-label="Make a join token">
              <label>
                Works for
                <select
                  value={seconds}
                  onChange={(event) => {
                    setSeconds(Number(event.target.value))
                  }}
                >
                  {VALID_FOR_SECONDS.map((option) => (
                    <option key={option} value={option}>
                      {duration(option)}
                    </option>
                  ))}
                </select>
              </label>
              <button type="submit" className="primary" disabled={made.kind === 'working'}>
                {made.kind === 'working' ? 'Making…' : 'Make token'}
              </button>
            </form>
          ) : (
            <p className="muted">{denied}</p>
          )}
        </div>
      </Panel>
    </>
  )
}

function peersOf(cluster: ClusterStatus): string[] {
  return cluster.nodes.filter((node) => node.state.kind === 'up').map((node) => node.peer_address)
}

function TokenCard({ token, peers, onDone }: { token: JoinToken; peers: string[]; onDone: () => void }) {
  const left = (token.expires_unix_ms - useNow()) / 1000
  const config = JSON.stringify({ join: { peers, token: token.token } }, null, 2)
  return (
    <SecretCard
      title="Join token"
      advice={
        left > 0
          ? `Works once, until ${moment(token.expires_unix_ms)} (${duration(left)} left). It is not shown again.`
          : 'This token has expired. Make another.'
      }
      fields={[{ label: 'Token', value: token.token, secret: true }]}
      onDone={onDone}
    >
      <p>For the configuration of the new node:</p>
      <pre>{config}</pre>
      <CopyButton label="Configuration" value={config} />
    </SecretCard>
  )
}
