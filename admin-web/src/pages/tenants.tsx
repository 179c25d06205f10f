import { type SubmitEvent, useState } from 'react'

import * as client from '../api/client.ts'
import { type Failure, failureOf } from '../api/failure.ts'
import type { AccessKeyPair, CreatedTenant, SessionInfo, TenantStatus } from '../api/types.ts'
import { whyNot } from '../capabilities.ts'
import { LiveMark } from '../components/live-mark.tsx'
import { Empty, FailureNotice, Loading } from '../components/notice.tsx'
import { PageHead } from '../components/page-head.tsx'
import { Panel } from '../components/panel.tsx'
import { SecretCard, type SecretField } from '../components/secret.tsx'
import { type Live, useLive } from '../live.ts'
import { LEVELS, describeStanding, survives } from '../state.ts'
import { unreachable } from '../unreachable.ts'
import { plural } from '../units.ts'

type Shown =
  | { kind: 'nothing' }
  | { kind: 'working' }
  | { kind: 'tenant'; tenant: CreatedTenant }
  | { kind: 'key'; name: string; key: AccessKeyPair }
  | { kind: 'failed'; failure: Failure }

const ADVICE = 'The secret is shown this one time and is not kept where anyone can read it. Store it now.'

export function TenantsPage({ session, onSessionOver }: { session: SessionInfo; onSessionOver: () => void }) {
  const [live, again] = useLive(client.tenants, onSessionOver)
  const [shown, setShown] = useState<Shown>({ kind: 'nothing' })

  const run = async (work: () => Promise<Shown>) => {
    setShown({ kind: 'working' })
    try {
      setShown(await work())
      again()
      return true
    } catch (error) {
      const failure = failureOf(error)
      if (failure.kind === 'session-over') onSessionOver()
      else setShown({ kind: 'failed', failure })
      return false
    }
  }
  const create = (name: string, level: string | null) =>
    run(async () => ({ kind: 'tenant', tenant: await client.createTenant(name, level) }))
  const createKey = (name: string) =>
    run(async () => ({ kind: 'key', name, key: await client.createAccessKey(name) }))
  const busy = shown.kind === 'working'

  return (
    <>
      <PageHead title="Tenants">
        {live.kind === 'stale' ? <LiveMark live={live} /> : null}
      </PageHead>
      <Outcome
        shown={shown}
        onDone={() => {
          setShown({ kind: 'nothing' })
        }}
      />
      <Panel title="Create a tenant">
        <CreateForm denied={whyNot(session.role, 'create tenants')} busy={busy} onCreate={create} />
      </Panel>
      <List
        live={live}
        denied={whyNot(session.role, 'create access keys')}
        busy={busy}
        onRetry={again}
        onCreateKey={(name) => void createKey(name)}
      />
    </>
  )
}

function Outcome({ shown, onDone }: { shown: Shown; onDone: () => void }) {
  switch (shown.kind) {
    case 'nothing':
    case 'working':
      return null
    case 'failed':
      return <FailureNotice failure={shown.failure} />
    case 'tenant': {
      const { name, region, access_key, secret_key } = shown.tenant
      const fields = [{ label: 'Region', value: region, secret: false }, ...keyFields({ access_key, secret_key })]
      return <SecretCard title={`Tenant ${name} is created`} advice={ADVICE} fields={fields} onDone={onDone} />
    }
    case 'key':
      return (
        <SecretCard title={`New access key for ${shown.name}`} advice={ADVICE} fields={keyFields(shown.key)} onDone={onDone} />
      )
    default:
      return unreachable(shown)
  }
}

function keyFields(key: AccessKeyPair): SecretField[] {
  return [
    { label: 'Access key', value: key.access_key, secret: false },
    { label: 'Secret key', value: key.secret_key, secret: true },
  ]
}

function CreateForm(props: {
  denied: string | null
  busy: boolean
  onCreate: (name: string, level: string | null) => Promise<boolean>
}) {
  const { denied, busy, onCreate } = props
  const [name, setName] = useState('')
  const [level, setLevel] = useState('')
  const [created, setCreated] = useState(0)
  if (denied !== null) return <p className="muted inset">{denied}</p>
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    if (!(await onCreate(name, level === '' ? null : level))) return
    setName('')
    setCreated((count) => count + 1)
  }
  return (
    // A new key makes a new form: its empty field has not been touched and is not marked as wrong.
    <form key={created} className="row-form" onSubmit={(event) => void submit(event)} aria-label="Create a tenant">
      <label>
        Name
        <input
          value={name}
          required
          pattern="[a-z0-9][a-z0-9\-]{0,61}[a-z0-9]"
          maxLength={63}
          autoCapitalize="none"
          spellCheck={false}
          autoComplete="off"
          aria-describedby="tenant-name-hint"
          title="2 to 63 of a-z, 0-9 and hyphen, with no hyphen at either end"
          onChange={(event) => {
            setName(event.target.value)
          }}
        />
      </label>
      <label>
        Protection
        <select
          value={level}
          onChange={(event) => {
            setLevel(event.target.value)
          }}
        >
          <option value="">As the cluster</option>
          {LEVELS.map((option) => (
            <option key={option} value={option}>
              {option} survives {survives(option)}
            </option>
          ))}
        </select>
      </label>
      <button type="submit" className="primary" disabled={busy}>
        {busy ? 'Creating…' : 'Create'}
      </button>
      <p className="muted small hint" id="tenant-name-hint">
        2 to 63 lower-case letters, digits and hyphens. The name cannot be changed later.
      </p>
    </form>
  )
}

function List(props: {
  live: Live<TenantStatus[]>
  denied: string | null
  busy: boolean
  onRetry: () => void
  onCreateKey: (name: string) => void
}) {
  const { live, denied, busy, onRetry, onCreateKey } = props
  if (live.kind === 'loading') return <Loading what="tenants" />
  if (live.kind === 'failed') return <FailureNotice failure={live.failure} onRetry={onRetry} />
  const tenants = live.value
  return (
    <Panel title="Tenants" note={plural(tenants.length, 'tenant')}>
      {tenants.length === 0 ? (
        <Empty title="There is no tenant yet.">
          <p>Create one to get the first access key.</p>
        </Empty>
      ) : (
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">State</th>
                <th scope="col">Region</th>
                <th scope="col">Protection</th>
                <th scope="col">Access keys</th>
                <th scope="col">
                  <span className="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {tenants.map((tenant) => (
                <tr key={tenant.id}>
                  <th scope="row" title={`Tenant ${tenant.id}`}>
                    {tenant.name}
                  </th>
                  <td>{describeStanding(tenant.state)}</td>
                  <td>{tenant.region}</td>
                  <td>{tenant.level ?? <span className="muted">as the cluster</span>}</td>
                  <td className="keys">
                    {tenant.access_keys.map((key) => (
                      <code key={key}>{key}</code>
                    ))}
                  </td>
                  <td className="actions">
                    <button
                      type="button"
                      className="quiet"
                      disabled={busy || denied !== null}
                      title={denied ?? undefined}
                      aria-label={`New access key for ${tenant.name}`}
                      onClick={() => {
                        onCreateKey(tenant.name)
                      }}
                    >
                      New access key
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  )
}
