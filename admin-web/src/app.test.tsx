// The console as a person meets it: elements are found by role and name.
import { act, render, screen, within } from '@testing-library/react'
import userEvent from '@testing-library/user-event'
import { describe, expect, test, vi } from 'vitest'

import { App } from './app.tsx'
import { INTERVAL_MS, STALE_MS } from './live.ts'
import { drive, FakeNode, node, PASSWORD } from './test/node.ts'

function start(change: (node: FakeNode) => void = () => undefined): FakeNode {
  const fake = new FakeNode()
  fake.loggedIn = true
  change(fake)
  fake.install()
  render(<App />)
  return fake
}

async function goTo(page: string) {
  await userEvent.click(await screen.findByRole('link', { name: page }))
}

describe('login', () => {
  test('a right password leads to the overview', async () => {
    start((fake) => (fake.loggedIn = false))
    await userEvent.type(await screen.findByLabelText('User'), 'admin')
    await userEvent.type(screen.getByLabelText('Password'), PASSWORD)
    await userEvent.click(screen.getByRole('button', { name: 'Log in' }))
    expect(await screen.findByRole('heading', { name: 'Overview' })).toBeTruthy()
    expect(screen.getByText('archive-west')).toBeTruthy()
  })

  test('a wrong one is answered with the reason, and the field is empty again', async () => {
    start((fake) => (fake.loggedIn = false))
    await userEvent.type(await screen.findByLabelText('User'), 'admin')
    await userEvent.type(screen.getByLabelText('Password'), 'wrong{Enter}')
    expect((await screen.findByRole('alert')).textContent).toContain('The name or the password is wrong.')
    expect(screen.getByLabelText<HTMLInputElement>('Password').value).toBe('')
  })

  test('logging out ends the session on the node', async () => {
    const fake = start()
    await userEvent.click(await screen.findByRole('button', { name: 'Log out' }))
    expect(await screen.findByRole('form', { name: 'Log in' })).toBeTruthy()
    expect(fake.loggedIn).toBe(false)
  })

  test('a node that does not answer says so and can be asked again', async () => {
    const fake = start((node) => (node.reachable = false))
    expect((await screen.findByRole('alert')).textContent).toContain('This node does not answer')
    fake.reachable = true
    await userEvent.click(screen.getByRole('button', { name: 'Try again' }))
    expect(await screen.findByRole('heading', { name: 'Overview' })).toBeTruthy()
  })
})

describe('orders about drives', () => {
  const other = { drive: null, locate_until_unix_ms: null, path: '/dev/vdd', size_bytes: 4 * 2 ** 40 }

  test('a drive is located, and emptied after a second click', async () => {
    const fake = start((fake) => (fake.cluster.nodes = [node(1)]))
    await goTo('Nodes and drives')
    await userEvent.click(await screen.findByRole('button', { name: 'Locate S-vdb' }))
    const id = fake.cluster.nodes[0]?.drives[0]?.id ?? ''
    expect(fake.writes).toEqual([`POST /drives/locate {"node":"n1","device":"${id}","minutes":10}`])
    await userEvent.click(screen.getByRole('button', { name: 'Empty S-vdb' }))
    expect(fake.writes).toHaveLength(1)
    await userEvent.click(screen.getByRole('button', { name: 'Yes' }))
    expect(fake.writes[1]).toBe(`POST /drives/${encodeURIComponent(id)}/drain null`)
  })

  test('a blank device is adopted; what is not blank only when its serial number was typed', async () => {
    const fake = start((fake) => {
      const waiting = { ...other, serial: 'NEW', standing: 'waiting' as const, erasable: true, reason: null }
      const foreign = { ...other, path: '/dev/vde', serial: 'OLD', standing: 'foreign' as const, erasable: true, reason: 'of another cluster' }
      fake.cluster.nodes = [node(1, { devices: [waiting, foreign] })]
    })
    await goTo('Nodes and drives')
    await userEvent.click(await screen.findByRole('button', { name: 'Adopt NEW' }))
    await userEvent.click(screen.getByRole('button', { name: 'Yes' }))
    expect(fake.writes).toEqual(['POST /drives/adopt {"node":"n1","device":"NEW"}'])
    const erase = screen.getByRole<HTMLButtonElement>('button', { name: 'Erase and adopt OLD' })
    expect(erase.disabled).toBe(true)
    await userEvent.type(screen.getByLabelText('Serial number of OLD, to erase it'), 'OLD')
    await userEvent.click(erase)
    expect(fake.writes[1]).toBe('POST /drives/adopt {"node":"n1","device":"OLD","erase":"OLD"}')
  })

  test('an account that may only look cannot give them', async () => {
    start((fake) => (fake.role = 'viewer'))
    await goTo('Nodes and drives')
    const buttons = await screen.findAllByRole<HTMLButtonElement>('button', { name: /^Locate/ })
    expect(buttons.every((button) => button.disabled)).toBe(true)
  })
})

describe('overview', () => {
  test('of a healthy cluster says that all is well', async () => {
    start()
    expect(await screen.findByText(/All 3 nodes and 6 drives are well/)).toBeTruthy()
    expect(screen.queryByRole('list', { name: 'Needs attention' })).toBeNull()
    const meter = screen.getByRole('meter', { name: 'Capacity of the cluster' })
    expect(meter.getAttribute('aria-valuetext')).toBe('6.00 TiB of 24.0 TiB used, 25 %')
  })

  test('lists what needs attention, with the way to its node', async () => {
    start((fake) => {
      const fenced = drive('/dev/vdc', { state: { kind: 'fenced', reason: 'flush failed' } })
      fake.cluster.nodes = [node(1, { drives: [drive('/dev/vdb'), fenced] }), node(2, { state: { kind: 'down', last_heard_unix_ms: null } })]
      fake.cluster.level.actual = null
      fake.cluster.level.stripe = null
    })
    const list = await screen.findByRole('list', { name: 'Needs attention' })
    expect(within(list).getByText('Writes are refused')).toBeTruthy()
    expect(within(list).getByText('n2 is down')).toBeTruthy()
    expect(within(list).getByText(/flush failed/)).toBeTruthy()
    await userEvent.click(within(list).getByRole('link', { name: 'Show n1' }))
    expect(await screen.findByRole('heading', { name: 'Node n1' })).toBeTruthy()
    expect(window.location.pathname).toBe('/nodes/n1')
  })

  test('drives of a node are named for those who do not see their cells', async () => {
    start()
    const row = await screen.findByRole('row', { name: /^n1 / })
    expect(within(row).getByRole('img', { name: '2 drives: 2 healthy' })).toBeTruthy()
  })
})

test('the drive table shows state, serial, capacity, use, shards and errors', async () => {
  start((fake) => {
    const worn = drive('/dev/vdc', { usage: { used_bytes: 2 ** 41, live_bytes: 2 ** 40, free_bytes: 2 ** 41, shards: 5, errors: 3 } })
    const lost = drive('/dev/vdd', { state: { kind: 'missing' }, usage: null })
    fake.cluster.nodes = [node(1, { drives: [worn, lost] })]
  })
  await goTo('Nodes and drives')
  const table = within(await screen.findByRole('region', { name: 'Drives of n1' }))
  const cells = (name: RegExp) => within(table.getByRole('row', { name })).getAllByRole('cell').map((cell) => cell.textContent)
  expect(cells(/S-vdc/)).toEqual(['/dev/vdc', 'Healthy', '50 %', '2.00 TiB', '4.00 TiB', '5', '3', 'LocateEmpty'])
  expect(cells(/S-vdd/)).toEqual(['/dev/vdd', 'MissingNot found by its node.', '—', '—', '4.00 TiB', '—', '—', 'Empty'])
})

describe('tenants', () => {
  test('a new tenant shows its secret once', async () => {
    const fake = start()
    await goTo('Tenants')
    await userEvent.type(await screen.findByLabelText('Name'), 'acme')
    await userEvent.selectOptions(screen.getByLabelText('Protection'), '3x')
    await userEvent.click(screen.getByRole('button', { name: 'Create' }))
    const card = await screen.findByRole('region', { name: 'Tenant acme is created' })
    expect(within(card).getByText('only-once')).toBeTruthy()
    expect(document.activeElement).toBe(card)
    expect(fake.writes).toEqual(['POST /tenants {"name":"acme","level":"3x"}'])
    expect(await screen.findByRole('row', { name: /^acme / })).toBeTruthy()
    await userEvent.click(within(card).getByRole('button', { name: 'I have stored it' }))
    expect(screen.queryByText('only-once')).toBeNull()
  })

  test('a name that is taken is explained', async () => {
    start()
    await goTo('Tenants')
    await userEvent.type(await screen.findByLabelText('Name'), 'demo{Enter}')
    expect((await screen.findByRole('alert')).textContent).toContain('Tenant "demo" exists already.')
    expect(screen.getByLabelText<HTMLInputElement>('Name').value).toBe('demo')
  })

  test('a further key of a tenant is made from its row', async () => {
    start()
    await goTo('Tenants')
    await userEvent.click(await screen.findByRole('button', { name: 'New access key for demo' }))
    expect(await screen.findByText('second-secret')).toBeTruthy()
  })

  test('a viewer reads why they cannot', async () => {
    start((fake) => (fake.role = 'viewer'))
    await goTo('Tenants')
    expect(await screen.findByText(/to create tenants takes the role operator/)).toBeTruthy()
    expect(screen.queryByRole('button', { name: 'Create' })).toBeNull()
    expect(screen.getByRole<HTMLButtonElement>('button', { name: 'New access key for demo' }).disabled).toBe(true)
  })

  test('an empty list says what to do', async () => {
    start((fake) => (fake.tenants = []))
    await goTo('Tenants')
    expect(await screen.findByText('There is no tenant yet.')).toBeTruthy()
  })
})

test('a join token comes with the peers that are up', async () => {
  const fake = start((node_) => {
    node_.cluster.nodes = [node(1), node(2, { state: { kind: 'down', last_heard_unix_ms: 1 } })]
  })
  await goTo('Add a node')
  await userEvent.selectOptions(await screen.findByLabelText('Works for'), '1 h')
  await userEvent.click(screen.getByRole('button', { name: 'Make token' }))
  const card = await screen.findByRole('region', { name: 'Join token' })
  expect(card.textContent).toContain('"10.0.0.1:7400"')
  expect(card.textContent).not.toContain('10.0.0.2')
  expect(fake.writes).toEqual(['POST /join-tokens {"valid_for_seconds":3600}'])
})

test('a path that is no page says so', async () => {
  window.history.replaceState(null, '', '/none')
  start()
  expect(await screen.findByRole('heading', { name: 'No such page' })).toBeTruthy()
})

describe('over time', () => {
  async function pass(milliseconds: number) {
    await act(async () => {
      await vi.advanceTimersByTimeAsync(milliseconds)
    })
  }

  test('the page follows the cluster', async () => {
    vi.useFakeTimers()
    const fake = start()
    await pass(10)
    expect(screen.getByText(/All 3 nodes/)).toBeTruthy()
    fake.cluster = { ...fake.cluster, nodes: [node(1), node(2), node(3, { state: { kind: 'joining' } })] }
    await pass(INTERVAL_MS + 10)
    expect(screen.getByText('n3 is joining')).toBeTruthy()
  })

  test('when the node stops answering, the last picture stays and says how old it is', async () => {
    vi.useFakeTimers()
    const fake = start()
    await pass(10)
    expect(screen.getByText('Live')).toBeTruthy()
    fake.reachable = false
    await pass(STALE_MS + INTERVAL_MS)
    expect(screen.getByRole('status').textContent).toMatch(/Stale: 1\d s old. This node does not answer/)
    expect(screen.getByText(/All 3 nodes/)).toBeTruthy()
    fake.reachable = true
    await pass(INTERVAL_MS + 10)
    expect(screen.getByText('Live')).toBeTruthy()
  })

  test('a session that ends leads to the login and says why', async () => {
    vi.useFakeTimers()
    const fake = start()
    await pass(10)
    fake.loggedIn = false
    await pass(INTERVAL_MS + 10)
    expect(screen.getByRole('form', { name: 'Log in' })).toBeTruthy()
    expect(screen.getByRole('status').textContent).toContain('The session is over')
  })
})
