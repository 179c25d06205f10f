// Values that are shown once: the reader copies them and says so.
import { type ReactNode, useEffect, useRef, useState } from 'react'

export type SecretField = { label: string; value: string; secret: boolean }

export function SecretCard(props: {
  title: string
  advice: string
  fields: SecretField[]
  onDone: () => void
  children?: ReactNode
}) {
  const { title, advice, fields, onDone, children } = props
  const card = useRef<HTMLElement>(null)
  // It appears as the answer to a button: who listens, or sees little, is taken to it.
  useEffect(() => {
    card.current?.focus()
  }, [])
  return (
    <section className="secret" aria-label={title} ref={card} tabIndex={-1}>
      <h3>{title}</h3>
      <p>{advice}</p>
      <dl>
        {fields.map((field) => (
          <SecretRow key={field.label} field={field} />
        ))}
      </dl>
      {children}
      <button type="button" className="primary" onClick={onDone}>
        I have stored it
      </button>
    </section>
  )
}

function SecretRow({ field: { label, value, secret } }: { field: SecretField }) {
  return (
    <div className="secret-row">
      <dt>{label}</dt>
      <dd>
        <code className={secret ? 'secret-value' : undefined}>{value}</code>
        <CopyButton label={label} value={value} />
      </dd>
    </div>
  )
}

type Copied = 'no' | 'yes' | 'refused'

const COPY_TEXT: Record<Copied, string> = { no: 'Copy', yes: 'Copied', refused: 'Select and copy by hand' }

export function CopyButton({ label, value }: { label: string; value: string }) {
  const [copied, setCopied] = useState<Copied>('no')
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value)
      setCopied('yes')
    } catch {
      setCopied('refused')
    }
  }
  return (
    <button type="button" className="quiet" onClick={() => void copy()} aria-label={`Copy ${label.toLowerCase()}`}>
      <span aria-live="polite">{COPY_TEXT[copied]}</span>
    </button>
  )
}
