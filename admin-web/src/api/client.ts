// The one place that speaks HTTP. Functions return parsed values or throw `RequestFailed`.
import type { z } from 'zod'

import { RequestFailed } from './failure.ts'
import * as parse from './parse.ts'
import type {
  AccessKeyPair,
  ClusterStatus,
  CreatedTenant,
  JoinToken,
  SessionInfo,
  TenantStatus,
} from './types.ts'

/** Longer than the node's own deadline of 30 s, so that its explanation arrives. */
const DEADLINE_SECONDS = 35

type Method = 'GET' | 'POST' | 'DELETE'

async function request<T>(
  method: Method,
  path: string,
  parser: z.ZodType<T>,
  options: { body?: unknown; signal?: AbortSignal } = {},
): Promise<T> {
  const deadline = AbortSignal.timeout(DEADLINE_SECONDS * 1000)
  const headers = new Headers({ accept: 'application/json' })
  if (method !== 'GET') headers.set('x-holdfast-csrf', '1')
  if (options.body !== undefined) headers.set('content-type', 'application/json')
  const init: RequestInit = {
    method,
    headers,
    credentials: 'same-origin',
    cache: 'no-store',
    redirect: 'error',
    signal: options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]),
  }
  if (options.body !== undefined) init.body = JSON.stringify(options.body)
  let status: number
  let text: string
  try {
    const response = await fetch(`/api/v1${path}`, init)
    status = response.status
    text = await response.text()
  } catch (error) {
    if (options.signal?.aborted === true) throw error
    throw new RequestFailed(deadline.aborted ? { kind: 'too-slow', seconds: DEADLINE_SECONDS } : { kind: 'unreachable' })
  }
  if (status >= 400) throw new RequestFailed(refusal(status, text))
  const parsed = parser.safeParse(json(text))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const what = issue === undefined ? 'empty answer' : `${issue.path.join('.')}: ${issue.message}`
  throw new RequestFailed({ kind: 'unreadable', status, what })
}

function refusal(status: number, text: string): RequestFailed['failure'] {
  const parsed = parse.problem.safeParse(json(text))
  if (!parsed.success) return { kind: 'unreadable', status, what: 'An error without a description' }
  const { type, title, detail, retry_after_seconds } = parsed.data
  if (type.endsWith(':session-required')) return { kind: 'session-over' }
  return { kind: 'problem', type, title, detail, retryAfterSeconds: retry_after_seconds ?? null }
}

function json(text: string): unknown {
  try {
    return text === '' ? null : (JSON.parse(text) as unknown)
  } catch {
    return undefined
  }
}

export async function login(user: string, password: string): Promise<SessionInfo> {
  await request('POST', '/session', parse.nothing, { body: { user, password } })
  return session()
}

export async function logout(): Promise<void> {
  await request('DELETE', '/session', parse.nothing)
}

export async function session(signal?: AbortSignal): Promise<SessionInfo> {
  return request('GET', '/session', parse.sessionInfo, signal && { signal })
}

export async function cluster(signal: AbortSignal): Promise<ClusterStatus> {
  return request('GET', '/cluster', parse.clusterStatus, { signal })
}

export async function tenants(signal: AbortSignal): Promise<TenantStatus[]> {
  return (await request('GET', '/tenants', parse.tenantList, { signal })).tenants
}

export async function createTenant(name: string, level: string | null): Promise<CreatedTenant> {
  return request('POST', '/tenants', parse.createdTenant, { body: level === null ? { name } : { name, level } })
}

export async function createAccessKey(tenant: string): Promise<AccessKeyPair> {
  return request('POST', `/tenants/${encodeURIComponent(tenant)}/access-keys`, parse.accessKeyPair)
}

/** `erase`: its serial number once more, when it is not blank. */
export async function adoptDrive(node: string, device: string, erase: string | null): Promise<void> {
  await request('POST', '/drives/adopt', parse.nothing, { body: erase === null ? { node, device } : { node, device, erase } })
}

/** 0 minutes stop it. */
export async function locateDrive(node: string, device: string, minutes: number): Promise<void> {
  await request('POST', '/drives/locate', parse.nothing, { body: { node, device, minutes } })
}

/** Has a drive emptied, after which it leaves. */
export async function drainDrive(id: string): Promise<void> {
  await request('POST', `/drives/${encodeURIComponent(id)}/drain`, parse.nothing)
}

/** Undoes that, while it has not left. */
export async function keepDrive(id: string): Promise<void> {
  await request('POST', `/drives/${encodeURIComponent(id)}/keep`, parse.nothing)
}

export async function createJoinToken(validForSeconds: number): Promise<JoinToken> {
  return request('POST', '/join-tokens', parse.joinToken, { body: { valid_for_seconds: validForSeconds } })
}
