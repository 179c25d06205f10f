// What needs attention, or that nothing does.
import type { Finding } from '../attention.ts'
import { Link } from './link.tsx'
import { Shape } from './state-mark.tsx'

export function Findings({ findings, calm }: { findings: Finding[]; calm: string }) {
  if (findings.length === 0) {
    return (
      <p className="calm">
        <Shape tone="good" /> {calm}
      </p>
    )
  }
  return (
    <ul className="findings" aria-label="Needs attention">
      {findings.map((finding) => (
        <li key={finding.key} className={`finding finding-${finding.severity}`}>
          <Shape tone={finding.severity} />
          <div>
            <strong>{finding.title}</strong>
            <span className="finding-detail">{finding.detail}</span>
          </div>
          {finding.node === null ? null : <Link to={{ kind: 'node', name: finding.node }}>Show {finding.node}</Link>}
        </li>
      ))}
    </ul>
  )
}
