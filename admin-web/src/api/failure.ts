// Why a request gave nothing, and the one place that turns it into sentences.
import { duration } from '../units.ts'
import { unreachable } from '../unreachable.ts'

export type Failure =
  | { kind: 'unreachable' }
  | { kind: 'too-slow'; seconds: number }
  | { kind: 'session-over' }
  | { kind: 'problem'; type: string; title: string; detail: string; retryAfterSeconds: number | null }
  | { kind: 'unreadable'; status: number; what: string }

export class RequestFailed extends Error {
  readonly failure: Failure

  constructor(failure: Failure) {
    super(failure.kind)
    this.failure = failure
  }
}

/** Anything thrown by a request. What is not a `RequestFailed` is a bug of the console, and shown as one. */
export function failureOf(error: unknown): Failure {
  if (error instanceof RequestFailed) return error.failure
  return { kind: 'unreadable', status: 0, what: String(error) }
}

export function describeFailure(failure: Failure): { title: string; detail: string } {
  switch (failure.kind) {
    case 'unreachable':
      return {
        title: 'This node does not answer',
        detail: 'The node is off, restarting, or the network between you and it is cut. Other nodes serve the same console.',
      }
    case 'too-slow':
      return {
        title: 'This node does not answer in time',
        detail: `No answer within ${duration(failure.seconds)}. The node is overloaded or cut off from its peers.`,
      }
    case 'session-over':
      return { title: 'The session is over', detail: 'Log in again.' }
    case 'problem': {
      const wait = failure.retryAfterSeconds
      const hint = wait === null ? '' : ` Try again in ${duration(wait)}.`
      return { title: failure.title, detail: `${failure.detail}${hint}` }
    }
    case 'unreadable':
      return {
        title: 'The answer makes no sense to this console',
        detail: `${failure.what} (HTTP ${failure.status}). Reload the page: the node may have been updated.`,
      }
    default:
      return unreachable(failure)
  }
}
