import { type ReactNode, useId } from 'react'

/** A titled part of a page. */
export function Panel({ title, note, children }: { title: string; note?: ReactNode; children: ReactNode }) {
  const id = useId()
  return (
    <section className="panel" aria-labelledby={id}>
      <header className="panel-head">
        <h2 id={id}>{title}</h2>
        {note === undefined ? null : <div className="panel-note">{note}</div>}
      </header>
      {children}
    </section>
  )
}
