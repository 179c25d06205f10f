// A state as a shape, a colour and a word: none of the three has to be seen alone.
import type { Tone } from '../state.ts'
import { unreachable } from '../unreachable.ts'

export function Shape({ tone }: { tone: Tone }) {
  return (
    <svg className={`shape tone-${tone}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {drawing(tone)}
    </svg>
  )
}

function drawing(tone: Tone) {
  switch (tone) {
    case 'good':
      return <circle cx="6" cy="6" r="4" />
    case 'busy':
      return <path d="M6 1.6a4.4 4.4 0 1 1-4.4 4.4h2.2A2.2 2.2 0 1 0 6 3.8Z" />
    case 'warning':
      return <path d="M6 1.2 11.2 10.6H.8Z" />
    case 'bad':
      return <path d="M3.4 1.2h5.2l2.2 2.2v5.2l-2.2 2.2H3.4L1.2 8.6V3.4Z" />
    case 'unknown':
      return <path d="M6 1.6a4.4 4.4 0 1 0 0 8.8 4.4 4.4 0 0 0 0-8.8Zm0 1.8a2.6 2.6 0 1 1 0 5.2 2.6 2.6 0 0 1 0-5.2Z" />
    default:
      return unreachable(tone)
  }
}

export function StateMark({ tone, label, title }: { tone: Tone; label: string; title?: string }) {
  return (
    <span className="state" title={title}>
      <Shape tone={tone} />
      {label}
    </span>
  )
}
