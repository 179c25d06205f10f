// States in words, and how serious each is. Every union is handled to its last case.
import type { DeviceStatus, DriveState, NodeState, TenantStanding } from './api/types.ts'
import { unreachable } from './unreachable.ts'
import { duration } from './units.ts'

/** How serious a state is: drawn as a colour and as a shape. */
export type Tone = 'good' | 'busy' | 'warning' | 'bad' | 'unknown'

export type Described = { tone: Tone; label: string; detail: string }

/** By how much a clock is wrong, in words. */
export function clockOff(aheadMilliseconds: number): string {
  const off = duration(Math.abs(aheadMilliseconds) / 1000)
  return aheadMilliseconds < 0 ? `${off} behind` : `${off} ahead`
}

export function describeNode(state: NodeState, now: number): Described {
  switch (state.kind) {
    case 'up':
      return { tone: 'good', label: 'Up', detail: 'Answers its peers.' }
    case 'down': {
      const heard = state.last_heard_unix_ms
      const detail =
        heard === null
          ? 'Does not answer, and was not heard since this node started.'
          : `Last heard ${duration((now - heard) / 1000)} ago.`
      return { tone: 'bad', label: 'Down', detail }
    }
    case 'joining':
      return { tone: 'busy', label: 'Joining', detail: 'Admitted, and not yet a member of its groups.' }
    case 'leaving':
      return { tone: 'busy', label: 'Leaving', detail: 'Removed as soon as no group needs it.' }
    default:
      return unreachable(state)
  }
}

export function describeDrive(state: DriveState): Described {
  switch (state.kind) {
    case 'healthy':
      return { tone: 'good', label: 'Healthy', detail: 'Reads and writes.' }
    case 'mounting':
      return { tone: 'busy', label: 'Mounting', detail: 'Its index is being rebuilt.' }
    case 'slow':
      return { tone: 'warning', label: 'Slow', detail: 'Serves, but later than its peers.' }
    case 'failing':
      return { tone: 'warning', label: 'Failing', detail: 'Its reads fail again and again. Empty it and replace it.' }
    case 'draining':
      return { tone: 'busy', label: 'Draining', detail: 'It is being emptied onto the others; leave it in until it has left.' }
    case 'removed':
      return { tone: 'good', label: 'Left', detail: 'It is empty and no member any more. Pull it.' }
    case 'fenced':
      return { tone: 'bad', label: 'Fenced', detail: state.reason }
    case 'missing':
      return { tone: 'bad', label: 'Missing', detail: 'Not found by its node.' }
    case 'unknown':
      return { tone: 'unknown', label: 'Unknown', detail: 'Its node does not answer.' }
    default:
      return unreachable(state)
  }
}

export function describeDevice(device: DeviceStatus): Described {
  const detail = device.reason ?? ''
  switch (device.standing) {
    case 'waiting':
      return { tone: 'busy', label: 'Waits for approval', detail: 'It is blank. Adopt it to have it used.' }
    case 'adopting':
      return { tone: 'busy', label: 'Being adopted', detail }
    case 'left':
      return { tone: 'good', label: 'Left', detail }
    case 'foreign':
      return { tone: 'warning', label: 'Of another cluster', detail }
    case 'duplicate':
      return { tone: 'warning', label: 'Copy of a drive', detail }
    case 'stale':
      return { tone: 'warning', label: 'Older than its drive', detail }
    case 'unknown':
      return { tone: 'warning', label: 'Not blank', detail }
    case 'damaged':
      return { tone: 'bad', label: 'Damaged', detail }
    case 'unreadable':
      return { tone: 'bad', label: 'Unreadable', detail }
    default:
      return unreachable(device.standing)
  }
}

const SURVIVES: Readonly<Record<string, string>> = {
  '+1n': '1 drive or 1 node',
  '+2d:1n': '2 drives or 1 node',
  '+2n': '2 drives or 2 nodes',
  '+3d:1n': '3 drives or 1 node',
  '+3d:1n1d': '3 drives, or 1 node and 1 drive',
  '+3n': '3 drives or 3 nodes',
  '+4d:1n': '4 drives or 1 node',
  '+4d:2n': '4 drives or 2 nodes',
  '+4n': '4 drives or 4 nodes',
}

/**
 * What a level survives: `2 drives or 1 node`. In a cluster of one node the promise counts drives only: its
 * stripes have nowhere else to go.
 */
export function survives(level: string, nodes = 2): string {
  const parity = SURVIVES[level]
  if (parity !== undefined) return nodes > 1 ? parity : (/^\d drives?/.exec(parity)?.[0] ?? parity)
  const copies = /^([2-8])x$/.exec(level)?.[1]
  return copies === undefined ? level : `the loss of ${Number(copies) - 1} of ${copies} copies`
}

/** Every level a tenant may have, in the order of what they survive. */
export const LEVELS: readonly string[] = [...Object.keys(SURVIVES), '2x', '3x', '4x', '5x', '6x', '7x', '8x']

/** Whether a tenant is served, in a word or three. */
export function describeStanding(standing: TenantStanding): string {
  switch (standing) {
    case 'active':
      return 'Served'
    case 'suspended':
      return 'Suspended'
    case 'shredding':
      return 'Being destroyed'
    default:
      return unreachable(standing)
  }
}
