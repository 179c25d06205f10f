import type { ClusterStatus, GroupStatus, NodeStatus } from '../api/types.ts'
import { attention } from '../attention.ts'
import { DriveCells } from '../components/drive-cells.tsx'
import { Findings } from '../components/findings.tsx'
import { Link } from '../components/link.tsx'
import { PageHead } from '../components/page-head.tsx'
import { Panel } from '../components/panel.tsx'
import { StateMark } from '../components/state-mark.tsx'
import { UsageBar } from '../components/usage-bar.tsx'
import { useNow } from '../live.ts'
import { describeNode, survives } from '../state.ts'
import { bytes, duration, integer, percent, plural, shortId } from '../units.ts'

export function OverviewPage({ cluster }: { cluster: ClusterStatus }) {
  const now = useNow()
  const drives = cluster.nodes.reduce((count, node) => count + node.drives.length, 0)
  const up = cluster.nodes.filter((node) => node.state.kind === 'up').length
  return (
    <>
      <PageHead title="Overview">
        <p className="muted">
          <span title={cluster.id}>Cluster {shortId(cluster.id)}</span> · membership epoch {integer(cluster.epoch)} ·{' '}
          {plural(cluster.tenants, 'tenant')}
        </p>
      </PageHead>
      <Findings
        findings={attention(cluster, now)}
        calm={`All ${plural(cluster.nodes.length, 'node')} and ${plural(drives, 'drive')} are well. New data survives the loss of ${survives(cluster.level.requested, cluster.nodes.length)}.`}
      />
      <div className="columns">
        <Protection cluster={cluster} />
        <CapacityPanel cluster={cluster} />
      </div>
      <Panel title="Nodes" note={`${up} of ${cluster.nodes.length} up`}>
        <NodeTable nodes={cluster.nodes} now={now} />
      </Panel>
      <Groups cluster={cluster} />
    </>
  )
}

function Protection({ cluster: { level, nodes } }: { cluster: ClusterStatus }) {
  const survived = (of: string) => survives(of, nodes.length)
  const short = level.actual === null || level.actual !== level.requested
  return (
    <Panel
      title="Protection"
      note={level.stripe === null ? 'No stripe possible' : `Stripe ${level.stripe.data}+${level.stripe.parity}`}
    >
      <dl className="levels">
        <div>
          <dt>Requested</dt>
          <dd className="level">{level.requested}</dd>
          <dd className="muted">{survived(level.requested)}</dd>
        </div>
        <div className={short ? 'level-short' : undefined}>
          <dt>Actual</dt>
          <dd className="level">{level.actual ?? 'None'}</dd>
          <dd className="muted">{level.actual === null ? 'writes are refused' : survived(level.actual)}</dd>
        </div>
        <div>
          <dt>Suggested</dt>
          <dd className="level">{level.suggested}</dd>
          <dd className="muted">{level.suggested === level.requested ? 'as requested' : survived(level.suggested)}</dd>
        </div>
      </dl>
    </Panel>
  )
}

function CapacityPanel({ cluster: { capacity, level } }: { cluster: ClusterStatus }) {
  const { raw_bytes: raw, used_bytes: used, free_bytes: free } = capacity
  const stripe = level.stripe
  const efficiency = stripe === null ? null : stripe.data / (stripe.data + stripe.parity)
  return (
    <Panel title="Capacity" note={`${bytes(raw)} raw`}>
      <div className="capacity">
        <UsageBar label="Capacity of the cluster" used={used} whole={raw} size="large" />
        <dl className="legend">
          <div>
            <dt>Used</dt>
            <dd>
              {bytes(used)} <span className="muted">{percent(used, raw)}</span>
            </dd>
          </div>
          <div>
            <dt>Free, raw</dt>
            <dd>{bytes(free)}</dd>
          </div>
          <div>
            <dt>Free for content</dt>
            <dd title="Free bytes less parity, for objects that fill their stripes">
              {efficiency === null ? '—' : `about ${bytes(free * efficiency)}`}
            </dd>
          </div>
        </dl>
      </div>
    </Panel>
  )
}

export function NodeTable({ nodes, now }: { nodes: NodeStatus[]; now: number }) {
  return (
    <div className="scroll">
      <table className="node-table">
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">Drives</th>
            <th scope="col">Used</th>
            <th scope="col" className="number">
              Capacity
            </th>
            <th scope="col" className="number">
              Running for
            </th>
            <th scope="col">Version</th>
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => (
            <NodeRow key={node.id} node={node} now={now} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function NodeRow({ node, now }: { node: NodeStatus; now: number }) {
  const state = describeNode(node.state, now)
  const { used, known, whole } = usageOf(node)
  return (
    <tr>
      <th scope="row">
        <Link to={{ kind: 'node', name: node.name }}>{node.name}</Link>
      </th>
      <td>
        <StateMark tone={state.tone} label={state.label} title={state.detail} />
        {state.tone === 'bad' ? <span className="muted"> {state.detail}</span> : null}
      </td>
      <td>
        <DriveCells drives={node.drives} />
      </td>
      <td className="usage-cell">
        {known === 0 ? (
          <span className="muted">—</span>
        ) : (
          <>
            <UsageBar label={`Drives of ${node.name}`} used={used} whole={known} />
            <span>{percent(used, known)}</span>
          </>
        )}
      </td>
      <td className="number">{bytes(whole)}</td>
      <td className="number">{node.uptime_seconds === null ? '—' : duration(node.uptime_seconds)}</td>
      <td>{node.version ?? '—'}</td>
    </tr>
  )
}

/** Used bytes of the drives that tell, their capacity, and the capacity of all. */
function usageOf(node: NodeStatus): { used: number; known: number; whole: number } {
  const sum = { used: 0, known: 0, whole: 0 }
  for (const { usage, capacity_bytes } of node.drives) {
    sum.whole += capacity_bytes
    if (usage !== null) {
      sum.used += usage.used_bytes
      sum.known += capacity_bytes
    }
  }
  return sum
}

/** Up to which entry the state here was compared. */
function compared({ compared_index }: GroupStatus): string {
  return compared_index === 0 ? 'not yet' : integer(compared_index)
}

function Groups({ cluster }: { cluster: ClusterStatus }) {
  const nameOf = (id: number) => cluster.nodes.find((node) => node.id === id)?.name ?? `n${id}`
  const led = cluster.groups.filter((group) => group.leader !== null).length
  return (
    <Panel title="Raft groups" note={`${led} of ${cluster.groups.length} have a leader`}>
      <div className="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Group</th>
              <th scope="col">Holds</th>
              <th scope="col">Leader</th>
              <th scope="col">Voters</th>
              <th scope="col" className="number">
                Term
              </th>
              <th scope="col" className="number">
                Applied here
              </th>
              <th scope="col" className="number">
                Same as most up to
              </th>
            </tr>
          </thead>
          <tbody>
            {cluster.groups.map((group) => (
              <tr key={group.id}>
                <th scope="row">g{group.id}</th>
                <td>{group.id === 0 ? 'Control' : 'Catalog'}</td>
                <td>{group.leader === null ? <StateMark tone="bad" label="None" /> : nameOf(group.leader)}</td>
                <td className="nowrap">{group.voters.map(nameOf).join(', ')}</td>
                <td className="number">{integer(group.term)}</td>
                <td className="number">{integer(group.applied_index)}</td>
                <td className="number">{group.states_differ ? <StateMark tone="bad" label="Different" /> : compared(group)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  )
}
