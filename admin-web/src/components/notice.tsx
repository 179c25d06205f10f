import type { ReactNode } from 'react'

import { describeFailure, type Failure } from '../api/failure.ts'

/** Something went wrong; said at once to those who listen. */
export function FailureNotice({ failure, onRetry }: { failure: Failure; onRetry?: () => void }) {
  const { title, detail } = describeFailure(failure)
  return (
    <div className="notice notice-bad" role="alert">
      <div>
        <strong>{title}</strong>
        <p>{detail}</p>
      </div>
      {onRetry === undefined ? null : (
        <button
          type="button"
          onClick={() => {
            onRetry()
          }}
        >
          Try again
        </button>
      )}
    </div>
  )
}

/** There is nothing yet, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <strong>{title}</strong>
      {children}
    </div>
  )
}

/** The first answer is on its way. */
export function Loading({ what }: { what: string }) {
  return (
    <p className="loading" role="status">
      Loading {what}…
    </p>
  )
}
