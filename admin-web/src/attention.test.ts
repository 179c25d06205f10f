import { describe, expect, test } from 'vitest'

import type { ClusterStatus, DriveState } from './api/types.ts'
import { attention } from './attention.ts'
import { LEVELS, survives } from './state.ts'
import { cluster, drive, node } from './test/node.ts'

function titles(change: Partial<ClusterStatus>): string[] {
  return attention(cluster(change), 100_000).map((finding) => `${finding.severity}: ${finding.title}`)
}

function withDrive(state: DriveState): Partial<ClusterStatus> {
  return { nodes: [node(1, { drives: [drive('/dev/vdb', { state })] })] }
}

test('a healthy cluster needs none', () => {
  expect(titles({})).toEqual([])
})

test('drives in trouble are named by serial and node', () => {
  expect(titles(withDrive({ kind: 'fenced', reason: 'x' }))).toEqual(['bad: Drive S-vdb on n1 is fenced'])
  expect(titles(withDrive({ kind: 'missing' }))).toEqual(['bad: Drive S-vdb on n1 is missing'])
  expect(titles(withDrive({ kind: 'slow' }))).toEqual(['warning: Drive S-vdb on n1 is slow'])
  expect(titles(withDrive({ kind: 'mounting' }))).toEqual(['busy: Drive S-vdb on n1 is mounting'])
})

test('a device that waits or is refused is named with what to do', () => {
  const device = { serial: 'S9', path: '/dev/vdd', size_bytes: 2 ** 40, drive: null, erasable: false, locate_until_unix_ms: null }
  const waiting = node(1, { devices: [{ ...device, standing: 'waiting' as const, reason: null }] })
  expect(titles({ nodes: [waiting] })).toEqual(['busy: A blank drive waits for approval on n1'])
  const stale = node(1, { devices: [{ ...device, standing: 'stale' as const, reason: 'it is an old image' }] })
  expect(titles({ nodes: [stale] })).toEqual(['warning: A drive in n1 is not used: stale'])
})

test('a drive that tells no serial is named by its path', () => {
  const nodes = [node(1, { drives: [drive('/dev/vdb', { serial: '', state: { kind: 'slow' } })] })]
  expect(titles({ nodes })).toEqual(['warning: Drive /dev/vdb on n1 is slow'])
})

test('a clock that is wrong is told of, with by how much and which way', () => {
  const clocks = [null, 3 * 86_400_000, -1_200_500]
  const nodes = clocks.map((clock_ahead_ms, at) => node(at + 1, { clock_ahead_ms }))
  expect(titles({ nodes })).toEqual(['warning: The clock of n2 is 3 d ahead', 'warning: The clock of n3 is 20 min behind'])
})

test('a node that is down is one finding, not one for each of its drives', () => {
  const drives = [drive('/dev/vdb', { state: { kind: 'unknown' }, usage: null })]
  const nodes = [node(1), node(2, { state: { kind: 'down', last_heard_unix_ms: 40_000 }, drives })]
  const findings = attention(cluster({ nodes }), 100_000)
  expect(findings.map((finding) => finding.title)).toEqual(['n2 is down'])
  expect(findings[0]?.detail).toContain('Last heard 1 min ago.')
})

test('a level that cannot be kept comes first', () => {
  const level = { requested: '+2d:1n', actual: null, suggested: '+2d:1n', stripe: null }
  const nodes = [node(1, { drives: [drive('/dev/vdb', { state: { kind: 'slow' } })] })]
  expect(titles({ level, nodes })).toEqual(['bad: Writes are refused', 'warning: Drive S-vdb on n1 is slow'])
})

test('groups without a leader are one finding', () => {
  const groups = [0, 1, 2].map((id) => ({ id, leader: id === 1 ? 1 : null, term: 1, voters: [1], applied_index: 1, compared_index: 0, states_differ: false, ailing: [] }))
  const [finding] = attention(cluster({ groups }), 0)
  expect(finding?.title).toBe('No leader for g0, g2')
  expect(finding?.detail).toContain('Membership')
})

test('replicas that do not run, or that nobody can tell the truth of, are told of', () => {
  const ailing = [
    { node: 1, what: 'its log is damaged', heals: true },
    { node: 9, what: 'the disk is gone', heals: false },
  ]
  const changes = [{ ailing }, { states_differ: true }]
  const groups = cluster({}).groups.map((group, at) => ({ ...group, ...changes[at] }))
  expect(titles({ groups })).toEqual([
    'bad: g0 does not run on node 9',
    'bad: Replicas of g1 have different states',
    'busy: g0 on n1 is filled anew from the others',
  ])
})

describe('capacity', () => {
  const used = (percent: number) =>
    titles({ capacity: { raw_bytes: 100, used_bytes: percent, free_bytes: 100 - percent, reserved_bytes: 0, spare_drives: 0 } })
  test('warns from 80 % and is bad from 90 %', () => {
    expect(used(79)).toEqual([])
    expect(used(80)).toEqual(['warning: 80 % of the capacity is used'])
    expect(used(90)).toEqual(['bad: 90 % of the capacity is used'])
  })
})

test('every level says what it survives, and one node does not promise nodes', () => {
  for (const level of LEVELS) expect(survives(level)).not.toBe(level)
  expect(survives('+2d:1n')).toBe('2 drives or 1 node')
  expect(survives('+2d:1n', 1)).toBe('2 drives')
  expect(survives('+3d:1n1d', 1)).toBe('3 drives')
  expect(survives('3x')).toBe('the loss of 2 of 3 copies')
})
