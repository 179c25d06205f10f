import { type ReactNode, useEffect } from 'react'

/** The heading of a page, which is also its title in the browser. */
export function PageHead({ title, children }: { title: string; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Holdfast`
  }, [title])
  return (
    <header className="page-head">
      <h1>{title}</h1>
      {children}
    </header>
  )
}
