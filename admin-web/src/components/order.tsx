// A button that has the node do something, and says what came of it.
import { type ReactNode, useState } from 'react'

import { describeFailure, type Failure, failureOf } from '../api/failure.ts'

/** Who asks: why the account may not, or null; and what to do when its session is over. */
export type Asker = { denied: string | null; onSessionOver: () => void }

type Props = { asker: Asker; name: string; busy: string; confirm?: string; order: () => Promise<void>; children: ReactNode }

/** With `confirm`, the first click asks and the second one orders. */
export function OrderButton({ asker, name, busy, confirm, order, children }: Props) {
  const [state, setState] = useState<'idle' | 'asking' | 'working'>('idle')
  const [failure, setFailure] = useState<Failure | null>(null)
  const run = async () => {
    setState('working')
    setFailure(null)
    try {
      await order()
    } catch (error) {
      const met = failureOf(error)
      if (met.kind === 'session-over') {
        asker.onSessionOver()
        return
      }
      setFailure(met)
    }
    setState('idle')
  }
  const described = failure === null ? null : describeFailure(failure)
  return (
    <span className="order">
      {state === 'asking' ? (
        <span role="group" aria-label={`${name}: sure?`}>
          <span className="muted">{confirm} </span>
          <button type="button" onClick={() => void run()}>
            Yes
          </button>{' '}
          <button
            type="button"
            onClick={() => {
              setState('idle')
            }}
          >
            No
          </button>
        </span>
      ) : (
        <button
          type="button"
          aria-label={name}
          disabled={asker.denied !== null || state === 'working'}
          title={asker.denied ?? undefined}
          onClick={() => {
            if (confirm === undefined) void run()
            else setState('asking')
          }}
        >
          {state === 'working' ? busy : children}
        </button>
      )}
      {described === null ? null : (
        <span className="muted state-detail" role="alert">
          {described.title} {described.detail}
        </span>
      )}
    </span>
  )
}
