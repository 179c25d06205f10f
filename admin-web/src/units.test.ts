import { expect, test } from 'vitest'

import { bytes, duration, integer, percent, plural } from './units.ts'

test('bytes have three digits in binary units', () => {
  expect([0, 1023, 1024, 1536, 10 * 1024, 1023.6 * 1024, 1.5 * 2 ** 40, 484 * 2 ** 50].map(bytes)).toEqual([
    '0 B',
    '1023 B',
    '1.00 KiB',
    '1.50 KiB',
    '10.0 KiB',
    '1.00 MiB',
    '1.50 TiB',
    '484 PiB',
  ])
})

test('percent does not claim full or empty when it is not', () => {
  expect([0, 0.04, 4.2, 41.4, 99.4, 99.95, 100].map((part) => percent(part, 100))).toEqual([
    '0 %',
    '< 0.1 %',
    '4.2 %',
    '41 %',
    '99.4 %',
    '> 99.9 %',
    '100 %',
  ])
  expect(percent(1, 0)).toBe('0 %')
})

test('durations have their two largest units', () => {
  expect([0, 7, 60, 65, 3600, 90_061, -5].map(duration)).toEqual(['0 s', '7 s', '1 min', '1 min 5 s', '1 h', '1 d 1 h', '0 s'])
})

test('counts are grouped and plural', () => {
  expect(integer(1234567)).toBe('1,234,567')
  expect([plural(1, 'drive'), plural(2, 'drive'), plural(0, 'drive')]).toEqual(['1 drive', '2 drives', '0 drives'])
})
