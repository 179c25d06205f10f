import { bytes, percent, percentNumber } from '../units.ts'

const WARNING_PERCENT = 80
const BAD_PERCENT = 90

/** How full something is. `label` names it for those who do not see the bar. */
export function UsageBar({ label, used, whole, size = 'small' }: { label: string; used: number; whole: number; size?: 'small' | 'large' }) {
  const value = percentNumber(used, whole)
  const tone = value >= BAD_PERCENT ? 'bad' : value >= WARNING_PERCENT ? 'warning' : 'plain'
  return (
    <div
      className={`bar bar-${size} bar-${tone}`}
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(value)}
      aria-valuetext={`${bytes(used)} of ${bytes(whole)} used, ${percent(used, whole)}`}
    >
      <div className="bar-fill" style={{ width: `${value}%` }} />
    </div>
  )
}
