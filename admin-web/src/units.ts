// Every number, time and unit on a page is made into text here.

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** Three significant digits in binary units: `1.50 TiB`. */
export function bytes(value: number): string {
  let unit = 0
  let scaled = value
  while (scaled >= 1023.5 && unit + 1 < BYTE_UNITS.length) {
    scaled /= 1024
    unit += 1
  }
  if (unit === 0) return `${Math.round(scaled)} B`
  const digits = scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0
  return `${scaled.toFixed(digits)} ${BYTE_UNITS[unit] ?? ''}`
}

/** A share as a number of percent, 0 of nothing. */
export function percentNumber(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.min(100, Math.max(0, (part / whole) * 100))
}

/** `41 %`; never rounded up to 100 or down to 0 when it is not. */
export function percent(part: number, whole: number): string {
  const value = percentNumber(part, whole)
  if (value > 0 && value < 0.1) return '< 0.1 %'
  if (value > 99.9 && value < 100) return '> 99.9 %'
  return `${value.toFixed(value < 9.95 && value > 0 ? 1 : value > 99 && value < 100 ? 1 : 0)} %`
}

const INTEGER = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** `1,234,567` */
export function integer(value: number): string {
  return INTEGER.format(value)
}

/** `1 drive`, `3 drives` */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${integer(count)} ${count === 1 ? one : many}`
}

/** The two largest units of a duration: `3 d 4 h`, `12 min 5 s`, `7 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([value]) => value > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(' ')
}

const CLOCK = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })

/** A moment on the reader's clock: `2 Jan 2027, 13:05:09`. */
export function moment(unixMillis: number): string {
  return CLOCK.format(unixMillis)
}

/** Where a group of ids is too long for a table: the first eight digits. */
export function shortId(id: string): string {
  return id.slice(0, 8)
}
