// A node for tests: answers the requests of the console as the API description says.
import { vi } from 'vitest'

import type { ClusterStatus, DriveStatus, NodeStatus, Role, TenantStatus } from '../api/types.ts'

const TIB = 2 ** 40

export function drive(path: string, change: Partial<DriveStatus> = {}): DriveStatus {
  return {
    id: path.padEnd(32, '0'),
    serial: `S-${path.slice(-3)}`,
    path,
    state: { kind: 'healthy' },
    capacity_bytes: 4 * TIB,
    usage: { used_bytes: TIB, live_bytes: TIB, free_bytes: 3 * TIB, shards: 1234, errors: 0 },
    reason: null,
    locate_until_unix_ms: null,
    ...change,
  }
}

export function node(id: number, change: Partial<NodeStatus> = {}): NodeStatus {
  return {
    id,
    name: `n${id}`,
    state: { kind: 'up' },
    peer_address: `10.0.0.${id}:7400`,
    services: { s3: `https://10.0.0.${id}:9443`, admin: `https://10.0.0.${id}:8443`, metrics: `https://10.0.0.${id}:9100/metrics` },
    version: '0.1.0',
    uptime_seconds: 3700,
    clock_ahead_ms: null,
    drives: [drive('/dev/vdb'), drive('/dev/vdc')],
    devices: [],
    ...change,
  }
}

export function cluster(change: Partial<ClusterStatus> = {}): ClusterStatus {
  return {
    id: 'c5'.repeat(16),
    name: 'archive-west',
    epoch: 7,
    level: { requested: '+2d:1n', actual: '+2d:1n', suggested: '+2d:1n', stripe: { data: 4, parity: 2 } },
    capacity: { raw_bytes: 24 * TIB, used_bytes: 6 * TIB, free_bytes: 18 * TIB, reserved_bytes: 4 * TIB, spare_drives: 1 },
    nodes: [node(1), node(2), node(3)],
    groups: [0, 1].map((id) => ({ id, leader: 1, term: 3, voters: [1, 2, 3], applied_index: 1000, compared_index: 512, states_differ: false, ailing: [] })),
    tenants: 1,
    ...change,
  }
}

type Answer = { status: number; body?: unknown }

export const PASSWORD = 'correct horse'

/** What the node knows. Tests change it while the console runs. */
export class FakeNode {
  loggedIn = false
  role: Role = 'operator'
  reachable = true
  cluster: ClusterStatus = cluster()
  tenants: TenantStatus[] = [
    { id: '03'.repeat(16), name: 'demo', state: 'active', region: 'us-east-1', level: null, access_keys: ['HFDEMO'], journal_address: null },
  ]
  /** `POST /tenants` with the body it had. */
  readonly writes: string[] = []

  /** Takes the place of the network. */
  install(): this {
    vi.stubGlobal('fetch', (path: string, init: RequestInit) => {
      if (!this.reachable) return Promise.reject(new TypeError('network'))
      const { status, body } = this.answer(init.method ?? 'GET', path.replace('/api/v1', ''), init)
      return Promise.resolve(new Response(body === undefined ? null : JSON.stringify(body), { status }))
    })
    return this
  }

  private answer(method: string, path: string, init: RequestInit): Answer {
    const body: unknown = typeof init.body === 'string' ? JSON.parse(init.body) : null
    if (method !== 'GET') {
      if (!new Headers(init.headers).has('x-holdfast-csrf')) return problem(403, 'cross-site-request', 'No header.')
      if (path !== '/session') this.writes.push(`${method} ${path} ${JSON.stringify(body)}`)
    }
    if (method === 'POST' && path === '/session') {
      if ((body as { password: string }).password !== PASSWORD) {
        return problem(401, 'login-refused', 'The name or the password is wrong.')
      }
      this.loggedIn = true
      return { status: 201, body: { token: 't', expires_unix_ms: 1, user: 'admin', role: this.role } }
    }
    if (!this.loggedIn) return problem(401, 'session-required', 'Log in.')
    switch (`${method} ${path}`) {
      case 'GET /session':
        return { status: 200, body: { user: 'admin', role: this.role, expires_unix_ms: 1, node: 'n1' } }
      case 'DELETE /session':
        this.loggedIn = false
        return { status: 204 }
      case 'GET /cluster':
        return { status: 200, body: this.cluster }
      case 'GET /tenants':
        return { status: 200, body: { tenants: this.tenants } }
      case 'POST /tenants':
        return this.createTenant((body as { name: string }).name)
      case 'POST /tenants/demo/access-keys':
        return { status: 201, body: { access_key: 'HFSECOND', secret_key: 'second-secret' } }
      case 'POST /join-tokens':
        return { status: 201, body: { token: 'join-me', expires_unix_ms: Date.now() + 900_000 } }
      case 'POST /drives/adopt':
      case 'POST /drives/locate':
        return { status: 204 }
      default:
        if (/^\/drives\/[^/]+\/(drain|keep)$/.test(path)) return { status: 204 }
        return problem(404, 'not-found', `${method} ${path}`)
    }
  }

  private createTenant(name: string): Answer {
    if (this.tenants.some((tenant) => tenant.name === name)) {
      return problem(409, 'conflict', `Tenant "${name}" exists already.`)
    }
    const tenant = { id: '04'.repeat(16), name, state: 'active' as const, region: 'us-east-1', level: null, access_keys: ['HFNEW'], journal_address: null }
    this.tenants = [...this.tenants, tenant]
    return { status: 201, body: { id: tenant.id, name, region: tenant.region, access_key: 'HFNEW', secret_key: 'only-once' } }
  }
}

export function problem(status: number, slug: string, detail: string): Answer {
  return { status, body: { type: `urn:holdfast:problem:${slug}`, title: `Title of ${slug}`, status, detail } }
}
