// Names for the types of the API description. schema.ts is generated: `npm run generate`.
import type { components } from './schema.ts'

type Schemas = components['schemas']

export type ClusterStatus = Schemas['ClusterStatus']
export type LevelStatus = Schemas['LevelStatus']
export type Capacity = Schemas['Capacity']
export type NodeStatus = Schemas['NodeStatus']
export type NodeState = Schemas['NodeState']
export type DriveStatus = Schemas['DriveStatus']
export type DeviceStatus = Schemas['DeviceStatus']
export type DriveState = Schemas['DriveState']
export type DriveUsage = Schemas['DriveUsage']
export type GroupStatus = Schemas['GroupStatus']
export type TenantStanding = Schemas['TenantStanding']
export type TenantStatus = Schemas['TenantStatus']
export type CreatedTenant = Schemas['CreatedTenant']
export type AccessKeyPair = Schemas['AccessKeyPair']
export type JoinToken = Schemas['JoinTokenInfo']
export type SessionInfo = Schemas['SessionInfo']
export type Role = Schemas['Role']
export type Problem = Schemas['Problem']
