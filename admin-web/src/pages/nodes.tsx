import * as client from '../api/client.ts'
import type { ClusterStatus, DriveStatus, NodeStatus, SessionInfo } from '../api/types.ts'
import { whyNot } from '../capabilities.ts'
import { DeviceTable, LocateButton } from '../components/devices.tsx'
import { summary } from '../components/drive-cells.tsx'
import { Facts } from '../components/facts.tsx'
import { Link } from '../components/link.tsx'
import { Empty } from '../components/notice.tsx'
import { type Asker, OrderButton } from '../components/order.tsx'
import { PageHead } from '../components/page-head.tsx'
import { Panel } from '../components/panel.tsx'
import { StateMark } from '../components/state-mark.tsx'
import { UsageBar } from '../components/usage-bar.tsx'
import { useNow } from '../live.ts'
import { clockOff, describeDrive, describeNode } from '../state.ts'
import { bytes, duration, integer, moment, percent, plural } from '../units.ts'
import { NodeTable } from './overview.tsx'

type Props = { cluster: ClusterStatus; session: SessionInfo; onSessionOver: () => void }

function askerOf({ session, onSessionOver }: Props): Asker {
  return { denied: whyNot(session.role, 'give orders about drives'), onSessionOver }
}

/** All nodes, then the drives of each. */
export function NodesPage(props: Props) {
  const { cluster } = props
  const now = useNow()
  const drives = cluster.nodes.flatMap((node) => node.drives)
  return (
    <>
      <PageHead title="Nodes and drives">
        <p className="muted">
          {plural(cluster.nodes.length, 'node')}, {summary(drives)}
        </p>
      </PageHead>
      <Panel title="Nodes">
        <NodeTable nodes={cluster.nodes} now={now} />
      </Panel>
      {cluster.nodes.map((node) => (
        <Panel key={node.id} title={`Drives of ${node.name}`} note={summary(node.drives)}>
          <DriveTable node={node} asker={askerOf(props)} />
          <DeviceTable node={node} asker={askerOf(props)} />
        </Panel>
      ))}
    </>
  )
}

/** One node: what is known of it, its drives, the groups it votes in. */
export function NodePage(props: Props & { name: string }) {
  const { cluster, name } = props
  const now = useNow()
  const node = cluster.nodes.find((candidate) => candidate.name === name)
  if (node === undefined) {
    return (
      <>
        <PageHead title={`Node ${name}`} />
        <Empty title={`There is no node ${name} in this cluster.`}>
          <p>
            <Link to={{ kind: 'nodes' }}>All nodes</Link>
          </p>
        </Empty>
      </>
    )
  }
  const state = describeNode(node.state, now)
  const groups = cluster.groups.filter((group) => group.voters.includes(node.id))
  const leads = groups.filter((group) => group.leader === node.id)
  const names = (list: typeof groups) => (list.length === 0 ? 'none' : list.map((group) => `g${group.id}`).join(', '))
  return (
    <>
      <PageHead title={`Node ${node.name}`}>
        <p className="muted">
          <Link to={{ kind: 'nodes' }}>All nodes</Link>
        </p>
      </PageHead>
      <Panel title="Status" note={<StateMark tone={state.tone} label={state.label} />}>
        <Facts
          items={[
            ['State', state.detail],
            ['Running for', node.uptime_seconds === null ? 'unknown' : duration(node.uptime_seconds)],
            ...(node.clock_ahead_ms === null ? [] : [['Clock', clockOff(node.clock_ahead_ms)] as [string, string]]),
            ['Version', node.version ?? 'unknown'],
            ['Number', integer(node.id)],
            ['Peer address', <code key="peer">{node.peer_address}</code>],
            ...services(node),
            ['Votes in', names(groups)],
            ['Leads', names(leads)],
            ...(node.state.kind === 'down' && node.state.last_heard_unix_ms !== null
              ? [['Last heard', moment(node.state.last_heard_unix_ms)] as [string, string]]
              : []),
          ]}
        />
      </Panel>
      <Panel title="Drives" note={summary(node.drives)}>
        <DriveTable node={node} asker={askerOf(props)} />
        <DeviceTable node={node} asker={askerOf(props)} />
      </Panel>
    </>
  )
}

function services(node: NodeStatus): [string, React.ReactNode][] {
  if (node.services === null) return [['Services', 'unknown while it does not answer']]
  return [
    ['S3', <code key="s3">{node.services.s3}</code>],
    [
      'Console and API',
      <a key="admin" href={node.services.admin} rel="noreferrer">
        {node.services.admin}
      </a>,
    ],
    ['Metrics', <code key="metrics">{node.services.metrics}</code>],
  ]
}

function DriveTable({ node, asker }: { node: NodeStatus; asker: Asker }) {
  if (node.drives.length === 0) {
    return <Empty title="This node has no drives.">It serves requests and votes, and holds no shards.</Empty>
  }
  return (
    <div className="scroll">
      <table className="drive-table">
        <thead>
          <tr>
            <th scope="col">Serial</th>
            <th scope="col">Path</th>
            <th scope="col">State</th>
            <th scope="col">Used</th>
            <th scope="col" className="number">
              Free
            </th>
            <th scope="col" className="number">
              Capacity
            </th>
            <th scope="col" className="number">
              Shards
            </th>
            <th scope="col" className="number">
              Errors
            </th>
            <th scope="col">Orders</th>
          </tr>
        </thead>
        <tbody>
          {node.drives.map((drive) => (
            <DriveRow key={drive.id} node={node.name} drive={drive} asker={asker} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function DriveRow({ node, drive, asker }: { node: string; drive: DriveStatus; asker: Asker }) {
  const { tone, label, detail } = describeDrive(drive.state)
  const { usage } = drive
  return (
    <tr>
      <th scope="row" title={`Drive ${drive.id}`}>
        {drive.serial === '' ? <span className="muted">none told</span> : <code>{drive.serial}</code>}
      </th>
      <td>
        <code>{drive.path}</code>
      </td>
      <td>
        <StateMark tone={tone} label={label} title={detail} />
        {tone === 'good' || tone === 'unknown' ? null : <span className="muted state-detail">{detail}</span>}
      </td>
      <td className="usage-cell">
        {usage === null ? (
          <span className="muted">—</span>
        ) : (
          <>
            <UsageBar label={`Drive ${drive.path}`} used={usage.used_bytes} whole={drive.capacity_bytes} />
            <span>{percent(usage.used_bytes, drive.capacity_bytes)}</span>
          </>
        )}
      </td>
      <td className="number">{usage === null ? '—' : bytes(usage.free_bytes)}</td>
      <td className="number">{bytes(drive.capacity_bytes)}</td>
      <td className="number">{usage === null ? '—' : integer(usage.shards)}</td>
      <td className={usage !== null && usage.errors > 0 ? 'number count-bad' : 'number'}>
        {usage === null ? '—' : integer(usage.errors)}
      </td>
      <td>
        <DriveOrders node={node} drive={drive} asker={asker} />
      </td>
    </tr>
  )
}

/** Locate it; have it emptied, so that it can be pulled; or keep it after all. */
function DriveOrders({ node, drive, asker }: { node: string; drive: DriveStatus; asker: Asker }) {
  const name = drive.serial === '' ? drive.path : drive.serial
  const { kind } = drive.state
  const answers = kind !== 'unknown' && kind !== 'missing'
  return (
    <>
      {answers ? <LocateButton node={node} device={drive.id} name={name} until={drive.locate_until_unix_ms} asker={asker} /> : null}
      {kind === 'draining' ? (
        <OrderButton asker={asker} name={`Keep ${name}`} busy="Asking…" order={() => client.keepDrive(drive.id)}>
          Keep
        </OrderButton>
      ) : null}
      {kind === 'draining' || kind === 'removed' ? null : (
        <OrderButton
          asker={asker}
          name={`Empty ${name}`}
          busy="Asking…"
          confirm="What it holds moves to the others, and then it leaves."
          order={() => client.drainDrive(drive.id)}
        >
          Empty
        </OrderButton>
      )}
    </>
  )
}
