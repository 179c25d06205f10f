// Values that are asked for again every few seconds, and that say how old they are.
import { useCallback, useEffect, useReducer, useState } from 'react'

import { type Failure, failureOf } from './api/failure.ts'

/** Pause between an answer and the next question. */
export const INTERVAL_MS = 3000
/** A value that is older is marked as stale. */
export const STALE_MS = 12_000

export type Live<T> =
  | { kind: 'loading' }
  | { kind: 'ready'; value: T; at: number }
  | { kind: 'stale'; value: T; at: number; failure: Failure }
  | { kind: 'failed'; failure: Failure }

type Event<T> = { kind: 'answered'; value: T; at: number } | { kind: 'failed'; failure: Failure }

/** One answer later. The last good value stays on the page until a better one comes. */
export function next<T>(live: Live<T>, event: Event<T>): Live<T> {
  if (event.kind === 'answered') return { kind: 'ready', value: event.value, at: event.at }
  if (live.kind === 'ready' || live.kind === 'stale') {
    return { kind: 'stale', value: live.value, at: live.at, failure: event.failure }
  }
  return event
}

/**
 * Asks now and every few seconds while the page is visible. `load` must be stable. `onSessionOver` is called
 * when the session has ended. The returned function asks at once.
 */
export function useLive<T>(load: (signal: AbortSignal) => Promise<T>, onSessionOver: () => void): [Live<T>, () => void] {
  const [live, dispatch] = useReducer(next<T>, { kind: 'loading' })
  const [asked, setAsked] = useState(0)
  useEffect(() => {
    const stop = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    let asking = false
    const ask = async () => {
      asking = true
      try {
        const value = await load(stop.signal)
        if (!stop.signal.aborted) dispatch({ kind: 'answered', value, at: Date.now() })
      } catch (error) {
        if (stop.signal.aborted) return
        const failure = failureOf(error)
        if (failure.kind === 'session-over') {
          onSessionOver()
          return
        }
        dispatch({ kind: 'failed', failure })
      }
      asking = false
      if (!stop.signal.aborted && !document.hidden) timer = setTimeout(() => void ask(), INTERVAL_MS)
    }
    const resume = () => {
      if (document.hidden || asking) return
      clearTimeout(timer)
      void ask()
    }
    void ask()
    document.addEventListener('visibilitychange', resume)
    return () => {
      stop.abort()
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', resume)
    }
  }, [load, onSessionOver, asked])
  const again = useCallback(() => {
    setAsked((count) => count + 1)
  }, [])
  return [live, again]
}

/** The time, renewed every second: for ages on the page. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now())
  useEffect(() => {
    const timer = setInterval(() => {
      setNow(Date.now())
    }, 1000)
    return () => {
      clearInterval(timer)
    }
  }, [])
  return now
}
