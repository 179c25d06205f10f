import { cleanup, configure } from '@testing-library/react'
import { afterEach, beforeEach, vi } from 'vitest'

// Machines that test are busy: what a person would wait for, a test waits for longer.
configure({ asyncUtilTimeout: 10_000 })

beforeEach(() => {
  // Some tests run without a document.
  if (typeof window === 'undefined') return
  window.history.replaceState(null, '', '/')
  window.scrollTo = () => undefined
})

afterEach(() => {
  cleanup()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})
