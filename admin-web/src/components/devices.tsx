// Devices of a node that are no drives of the cluster, or not yet: what they are, and how to adopt them.
import { useState } from 'react'

import * as client from '../api/client.ts'
import type { DeviceStatus, NodeStatus } from '../api/types.ts'
import { describeDevice } from '../state.ts'
import { bytes } from '../units.ts'
import { type Asker, OrderButton } from './order.tsx'
import { StateMark } from './state-mark.tsx'

/** How long a light blinks. */
export const LOCATE_MINUTES = 10

export function DeviceTable({ node, asker }: { node: NodeStatus; asker: Asker }) {
  if (node.devices.length === 0) return null
  return (
    <div className="scroll">
      <table className="drive-table" aria-label={`Other devices of ${node.name}`}>
        <thead>
          <tr>
            <th scope="col">Serial</th>
            <th scope="col">Path</th>
            <th scope="col">What it is</th>
            <th scope="col" className="number">
              Size
            </th>
            <th scope="col">Orders</th>
          </tr>
        </thead>
        <tbody>
          {node.devices.map((device) => (
            <DeviceRow key={device.path} node={node.name} device={device} asker={asker} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function DeviceRow({ node, device, asker }: { node: string; device: DeviceStatus; asker: Asker }) {
  const { tone, label, detail } = describeDevice(device)
  return (
    <tr>
      <th scope="row">
        <code>{device.serial}</code>
      </th>
      <td>
        <code>{device.path}</code>
      </td>
      <td>
        <StateMark tone={tone} label={label} title={detail} />
        <span className="muted state-detail">{detail}</span>
      </td>
      <td className="number">{bytes(device.size_bytes)}</td>
      <td>
        <LocateButton node={node} device={device.serial} until={device.locate_until_unix_ms} asker={asker} />
        {device.standing === 'waiting' ? (
          <OrderButton
            asker={asker}
            name={`Adopt ${device.serial}`}
            busy="Adopting…"
            confirm="It becomes a drive of this cluster."
            order={() => client.adoptDrive(node, device.serial, null)}
          >
            Adopt
          </OrderButton>
        ) : null}
        {device.erasable && device.standing !== 'waiting' ? <Erase node={node} device={device} asker={asker} /> : null}
      </td>
    </tr>
  )
}

/** What is on the device is lost: its serial number is to be typed, not clicked. */
function Erase({ node, device, asker }: { node: string; device: DeviceStatus; asker: Asker }) {
  const [typed, setTyped] = useState('')
  const differs = typed === device.serial ? null : 'Type its serial number first: what is on it will be lost.'
  return (
    <span className="order">
      <input
        aria-label={`Serial number of ${device.serial}, to erase it`}
        placeholder="serial number, to erase it"
        value={typed}
        disabled={asker.denied !== null}
        onChange={(event) => {
          setTyped(event.target.value)
        }}
      />
      <OrderButton
        asker={{ ...asker, denied: asker.denied ?? differs }}
        name={`Erase and adopt ${device.serial}`}
        busy="Erasing…"
        order={() => client.adoptDrive(node, device.serial, typed)}
      >
        Erase and adopt
      </OrderButton>
    </span>
  )
}

/** Has the light of a drive or device blink, or stop. */
export function LocateButton(props: { node: string; device: string; name?: string; until: number | null; asker: Asker }) {
  const { node, device, until, asker } = props
  const name = props.name ?? device
  return until === null ? (
    <OrderButton asker={asker} name={`Locate ${name}`} busy="Asking…" order={() => client.locateDrive(node, device, LOCATE_MINUTES)}>
      Locate
    </OrderButton>
  ) : (
    <OrderButton asker={asker} name={`Stop locating ${name}`} busy="Asking…" order={() => client.locateDrive(node, device, 0)}>
      Stop blinking
    </OrderButton>
  )
}
