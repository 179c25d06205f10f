// How old what the page shows is.
import { describeFailure } from '../api/failure.ts'
import { type Live, STALE_MS, useNow } from '../live.ts'
import { duration } from '../units.ts'
import { Shape } from './state-mark.tsx'

export function LiveMark<T>({ live }: { live: Live<T> }) {
  const now = useNow()
  if (live.kind === 'loading') return null
  if (live.kind === 'failed') {
    return (
      <span className="live" role="status">
        <Shape tone="bad" /> No answer
      </span>
    )
  }
  const age = Math.max(0, now - live.at)
  if (live.kind === 'stale' || age > STALE_MS) {
    const why = live.kind === 'stale' ? describeFailure(live.failure).title : 'Waiting for an answer'
    return (
      <span className="live live-stale" role="status" title={why}>
        <Shape tone="warning" /> Stale: {duration(age / 1000)} old. {why}
      </span>
    )
  }
  return (
    <span className="live">
      <Shape tone="good" /> Live
    </span>
  )
}
