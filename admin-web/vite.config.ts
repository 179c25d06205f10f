// Builds the console into dist/, which node/admin-api embeds. No file of it talks to any other host.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants } from 'node:zlib'

import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

/** Files below this size are sent as they are. */
const COMPRESS_FROM_BYTES = 1024

/** Writes NAME.br beside each text file that Brotli makes smaller: nodes serve it as it is. */
function brotli(): Plugin {
  let out = ''
  return {
    name: 'holdfast-brotli',
    apply: 'build',
    configResolved: (config) => {
      out = join(config.root, config.build.outDir)
    },
    closeBundle: () => {
      for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(css|html|js|svg)$/.test(entry.name)) continue
        const path = join(entry.parentPath, entry.name)
        const bytes = readFileSync(path)
        const packed = brotliCompressSync(bytes, {
          params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
        })
        if (bytes.length >= COMPRESS_FROM_BYTES && packed.length < bytes.length) writeFileSync(`${path}.br`, packed)
      }
    },
  }
}

export default defineConfig({
  plugins: [brotli()],
  build: {
    target: 'es2023',
    // The nodes' Content-Security-Policy allows files of this host only: nothing inline, no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` against a node: HOLDFAST_ADMIN=https://127.0.0.1:8443
    proxy: { '/api': { target: process.env['HOLDFAST_ADMIN'] ?? 'https://127.0.0.1:8443', secure: false } },
  },
  test: { environment: 'jsdom', setupFiles: ['src/test/setup.ts'], restoreMocks: true, testTimeout: 60_000 },
})
