// What an operator should look at, most serious first. Pure: a cluster in, findings out.
import type { ClusterStatus, DeviceStatus, DriveStatus, GroupStatus, NodeStatus } from './api/types.ts'
import { clockOff, describeDrive, describeNode, survives } from './state.ts'
import { bytes, percent, percentNumber, plural } from './units.ts'

export type Severity = 'bad' | 'warning' | 'busy'

export type Finding = {
  /** Stable while the finding stands. */
  key: string
  severity: Severity
  title: string
  /** What it means and what to do. */
  detail: string
  /** The node whose page tells more. */
  node: string | null
}

const USED_WARNING_PERCENT = 80
const USED_BAD_PERCENT = 90

const ORDER: Record<Severity, number> = { bad: 0, warning: 1, busy: 2 }

export function attention(cluster: ClusterStatus, now: number): Finding[] {
  const findings = [
    ...protection(cluster),
    ...cluster.nodes.flatMap((node) => ofNode(node, now)),
    ...leaderless(cluster.groups),
    ...cluster.groups.flatMap((group) => ofGroup(group, cluster.nodes)),
    ...capacity(cluster),
  ]
  return findings.sort((a, b) => ORDER[a.severity] - ORDER[b.severity])
}

function protection({ level, nodes }: ClusterStatus): Finding[] {
  const survived = (of: string) => survives(of, nodes.length)
  if (level.actual === null) {
    return [
      {
        key: 'level',
        severity: 'bad',
        title: 'Writes are refused',
        detail:
          `No stripe on the drives that are up keeps ${level.requested} (${survived(level.requested)}). ` +
          'Reads go on. Bring nodes or drives back, or lower the level.',
        node: null,
      },
    ]
  }
  if (level.actual !== level.requested) {
    return [
      {
        key: 'level',
        severity: 'warning',
        title: `New data gets ${level.actual}, not ${level.requested}`,
        detail: `It survives the loss of ${survived(level.actual)}.`,
        node: null,
      },
    ]
  }
  return []
}

function ofNode(node: NodeStatus, now: number): Finding[] {
  const state = describeNode(node.state, now)
  const findings: Finding[] = []
  if (node.state.kind === 'down') {
    findings.push({
      key: `node-${node.id}`,
      severity: 'bad',
      title: `${node.name} is down`,
      detail: `${state.detail} Its shards are rebuilt from others when read.`,
      node: node.name,
    })
  }
  if (node.state.kind === 'joining') {
    findings.push({ key: `node-${node.id}`, severity: 'busy', title: `${node.name} is joining`, detail: state.detail, node: node.name })
  }
  if (node.clock_ahead_ms !== null) {
    findings.push({
      key: `clock-${node.id}`,
      severity: 'warning',
      title: `The clock of ${node.name} is ${clockOff(node.clock_ahead_ms)}`,
      detail:
        'Compared with what most nodes have. The cluster goes by those; but clients whose clocks are right are refused by ' +
        'this node when it is more than 15 minutes. An appliance sets it within seconds; otherwise set it. Look at why it was wrong.',
      node: node.name,
    })
  }
  // Of a node that is down the drives are unknown, which its own finding says already.
  return [
    ...findings,
    ...node.drives.flatMap((drive) => ofDrive(node.name, drive)),
    ...node.devices.map((device) => ofDevice(node.name, device)),
  ]
}

function ofDrive(node: string, drive: DriveStatus): Finding[] {
  const { tone, label, detail } = describeDrive(drive.state)
  const name = drive.serial === '' ? drive.path : drive.serial
  const finding = (severity: Severity, title: string, what: string): Finding => ({
    key: `drive-${drive.id}`,
    severity,
    title,
    detail: what,
    node,
  })
  if (tone === 'bad') {
    const advice = drive.state.kind === 'missing' ? 'Check that it is plugged in, or replace it.' : 'Replace it.'
    return [finding('bad', `Drive ${name} on ${node} is ${label.toLowerCase()}`, `${drive.path}: ${sentence(detail)} ${advice}`)]
  }
  const why = drive.reason === null ? detail : sentence(`${detail} Why: ${drive.reason}`)
  if (tone === 'warning') return [finding('warning', `Drive ${name} on ${node} is ${label.toLowerCase()}`, why)]
  if (tone === 'busy') return [finding('busy', `Drive ${name} on ${node} is ${label.toLowerCase()}`, detail)]
  const errors = drive.usage?.errors ?? 0
  if (errors > 0) {
    return [finding('warning', `Drive ${name} on ${node} had ${plural(errors, 'error')}`, 'It still serves. Watch whether the number grows.')]
  }
  return []
}

function ofDevice(node: string, device: DeviceStatus): Finding {
  const about = { key: `device-${node}-${device.path}`, node }
  const name = `${device.serial} in ${node} (${device.path}, ${bytes(device.size_bytes)})`
  if (device.standing === 'waiting') {
    const how = `Approve of it with: holdfast drive adopt ${node} ${device.serial}`
    return { ...about, severity: 'busy', title: `A blank drive waits for approval on ${node}`, detail: `${name}. ${how}` }
  }
  if (device.standing === 'adopting') {
    return { ...about, severity: 'busy', title: `A drive is being adopted on ${node}`, detail: name }
  }
  const why = device.reason ?? 'It cannot be used.'
  return { ...about, severity: 'warning', title: `A drive in ${node} is not used: ${device.standing}`, detail: sentence(`${name}: ${why}`) }
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`
}

function leaderless(groups: GroupStatus[]): Finding[] {
  const without = groups.filter((group) => group.leader === null)
  if (without.length === 0) return []
  const names = without.map((group) => `g${group.id}`).join(', ')
  const control = without.some((group) => group.id === 0)
  return [
    {
      key: 'leaderless',
      severity: 'bad',
      title: `No leader for ${names}`,
      detail:
        (control ? 'Membership, tenants and roles cannot be changed. ' : '') +
        'Buckets kept in these groups can be neither written nor listed until most of their voters are up.',
      node: null,
    },
  ]
}

function ofGroup({ id, ailing, states_differ }: GroupStatus, nodes: NodeStatus[]): Finding[] {
  const findings: Finding[] = ailing.map(({ node, what, heals }) => {
    const name = nodes.find((known) => known.id === node)?.name ?? `node ${node}`
    return {
      key: `ailing-${id}-${node}`,
      severity: heals ? 'busy' : 'bad',
      title: heals ? `g${id} on ${name} is filled anew from the others` : `g${id} does not run on ${name}`,
      detail: sentence(what),
      node: name,
    }
  })
  if (states_differ) {
    findings.push({
      key: `differ-${id}`,
      severity: 'bad',
      title: `Replicas of g${id} have different states`,
      detail:
        'No majority of its voters agrees on one, so that what is read depends on the node; nothing is changed by itself. ' +
        'Stop what writes, keep the state directories of all voters, and look in their logs for the entry.',
      node: null,
    })
  }
  return findings
}

function capacity({ capacity: { raw_bytes, used_bytes, free_bytes } }: ClusterStatus): Finding[] {
  const used = percentNumber(used_bytes, raw_bytes)
  if (raw_bytes === 0 || used < USED_WARNING_PERCENT) return []
  return [
    {
      key: 'capacity',
      severity: used < USED_BAD_PERCENT ? 'warning' : 'bad',
      title: `${percent(used_bytes, raw_bytes)} of the capacity is used`,
      detail: `${bytes(free_bytes)} are free before protection. Add drives or nodes.`,
      node: null,
    },
  ]
}
