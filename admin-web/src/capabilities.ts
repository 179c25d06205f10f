// What the account may do. The server decides; this only explains beforehand.
import type { Role } from './api/types.ts'

/** Why the account may not, or null when it may. */
export function whyNot(role: Role, action: 'create tenants' | 'create access keys' | 'add nodes' | 'give orders about drives'): string | null {
  return role === 'operator' ? null : `Your account may look only: to ${action} takes the role operator.`
}
