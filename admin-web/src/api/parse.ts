// What a node sends is parsed here, once; behind this file the types hold.
//
// Each parser is checked against the generated type: the compiler refuses one that has drifted from the API
// description. Fields the console does not know are dropped, so that a newer node may send more.
import { z } from 'zod'

import type * as api from './types.ts'

// The Content-Security-Policy forbids code made from strings, which zod would otherwise try.
z.config({ jitless: true })

/** Counts and byte counts. Above 2^53 JSON numbers are rounded, which no unit we print shows. */
const count = z.number().nonnegative()

const levelStatus = z.object({
  requested: z.string(),
  actual: z.string().nullable(),
  suggested: z.string(),
  stripe: z.object({ data: count, parity: count }).nullable(),
}) satisfies z.ZodType<api.LevelStatus>

const capacity = z.object({
  raw_bytes: count,
  used_bytes: count,
  free_bytes: count,
  reserved_bytes: count,
  spare_drives: count,
}) satisfies z.ZodType<api.Capacity>

const driveState = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('healthy') }),
  z.object({ kind: z.literal('mounting') }),
  z.object({ kind: z.literal('slow') }),
  z.object({ kind: z.literal('failing') }),
  z.object({ kind: z.literal('fenced'), reason: z.string() }),
  z.object({ kind: z.literal('draining') }),
  z.object({ kind: z.literal('removed') }),
  z.object({ kind: z.literal('missing') }),
  z.object({ kind: z.literal('unknown') }),
]) satisfies z.ZodType<api.DriveState>

const driveStatus = z.object({
  id: z.string(),
  serial: z.string(),
  path: z.string(),
  state: driveState,
  capacity_bytes: count,
  usage: z.object({ used_bytes: count, live_bytes: count, free_bytes: count, shards: count, errors: count }).nullable(),
  reason: z.string().nullable(),
  locate_until_unix_ms: count.nullable(),
}) satisfies z.ZodType<api.DriveStatus>

const deviceStatus = z.object({
  serial: z.string(),
  path: z.string(),
  size_bytes: count,
  standing: z.enum(['waiting', 'adopting', 'foreign', 'duplicate', 'stale', 'left', 'unknown', 'damaged', 'unreadable']),
  reason: z.string().nullable(),
  drive: z.string().nullable(),
  erasable: z.boolean(),
  locate_until_unix_ms: count.nullable(),
}) satisfies z.ZodType<api.DeviceStatus>

const nodeState = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('up') }),
  z.object({ kind: z.literal('down'), last_heard_unix_ms: count.nullable() }),
  z.object({ kind: z.literal('joining') }),
  z.object({ kind: z.literal('leaving') }),
]) satisfies z.ZodType<api.NodeState>

const nodeStatus = z.object({
  id: count,
  name: z.string(),
  state: nodeState,
  peer_address: z.string(),
  services: z.object({ s3: z.string(), admin: z.string(), metrics: z.string() }).nullable(),
  version: z.string().nullable(),
  uptime_seconds: count.nullable(),
  clock_ahead_ms: z.number().int().nullable(),
  drives: z.array(driveStatus),
  devices: z.array(deviceStatus),
}) satisfies z.ZodType<api.NodeStatus>

const groupStatus = z.object({
  id: count,
  leader: count.nullable(),
  term: count,
  voters: z.array(count),
  applied_index: count,
  compared_index: count,
  states_differ: z.boolean(),
  ailing: z.array(z.object({ node: count, what: z.string(), heals: z.boolean() })),
}) satisfies z.ZodType<api.GroupStatus>

export const clusterStatus = z.object({
  id: z.string(),
  name: z.string(),
  epoch: count,
  level: levelStatus,
  capacity,
  nodes: z.array(nodeStatus),
  groups: z.array(groupStatus),
  tenants: count,
}) satisfies z.ZodType<api.ClusterStatus>

const tenantStatus = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['active', 'suspended', 'shredding']),
  region: z.string(),
  level: z.string().nullable(),
  access_keys: z.array(z.string()),
  journal_address: z.string().nullable(),
}) satisfies z.ZodType<api.TenantStatus>

export const tenantList = z.object({ tenants: z.array(tenantStatus) })

export const createdTenant = z.object({
  id: z.string(),
  name: z.string(),
  region: z.string(),
  access_key: z.string(),
  secret_key: z.string(),
}) satisfies z.ZodType<api.CreatedTenant>

export const accessKeyPair = z.object({
  access_key: z.string(),
  secret_key: z.string(),
}) satisfies z.ZodType<api.AccessKeyPair>

export const joinToken = z.object({
  token: z.string(),
  expires_unix_ms: count,
}) satisfies z.ZodType<api.JoinToken>

const role = z.enum(['viewer', 'operator']) satisfies z.ZodType<api.Role>

export const sessionInfo = z.object({
  user: z.string(),
  role,
  expires_unix_ms: count,
  node: z.string(),
}) satisfies z.ZodType<api.SessionInfo>

/** Of POST /session the console takes nothing: its cookie is the session. */
export const nothing = z.unknown().transform(() => null)

export const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: count,
  detail: z.string(),
  retry_after_seconds: count.nullish(),
})
