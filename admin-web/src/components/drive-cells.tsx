// All drives of a node in one line: one cell a drive.
import type { DriveStatus } from '../api/types.ts'
import { describeDrive } from '../state.ts'
import { plural } from '../units.ts'

export function DriveCells({ drives }: { drives: DriveStatus[] }) {
  if (drives.length === 0) return <span className="muted">No drives</span>
  return (
    <span className="cells" role="img" aria-label={summary(drives)}>
      {drives.map((drive) => {
        const { tone, label } = describeDrive(drive.state)
        return <span key={drive.id} className={`cell tone-${tone}`} title={`${drive.path} ${drive.serial}: ${label}`} />
      })}
    </span>
  )
}

/** `4 drives: 3 healthy, 1 fenced` */
export function summary(drives: DriveStatus[]): string {
  const counts = new Map<string, number>()
  for (const drive of drives) {
    const label = describeDrive(drive.state).label.toLowerCase()
    counts.set(label, (counts.get(label) ?? 0) + 1)
  }
  const parts = [...counts].map(([label, count]) => `${count} ${label}`)
  return `${plural(drives.length, 'drive')}: ${parts.join(', ')}`
}
