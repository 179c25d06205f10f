// Copies a tree of files to a bucket and back with Amazon's SDK for JavaScript, certificates verified.
//
// tree.mjs mb BUCKET | in BUCKET PREFIX DIR | ls BUCKET PREFIX | out BUCKET PREFIX DIR
//
// Keys, region and endpoint come from the environment, and the CA from NODE_EXTRA_CA_CERTS. `ls` prints {path below
// the prefix: size} as JSON. Everything else prints nothing and fails on the first error.

import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'

import { CreateBucketCommand, GetObjectCommand, S3Client, paginateListObjectsV2 } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'

const FILES_AT_ONCE = 8

const s3 = new S3Client({ endpoint: process.env.AWS_ENDPOINT_URL, forcePathStyle: true })

async function listing(bucket, prefix) {
  const found = []
  for await (const page of paginateListObjectsV2({ client: s3 }, { Bucket: bucket, Prefix: `${prefix}/` })) {
    found.push(...(page.Contents ?? []))
  }
  return found
}

async function inParallel(items, work) {
  const queue = items.values()
  // All take from one iterator: each item is done once.
  const worker = async () => {
    for (const item of queue) await work(item)
  }
  await Promise.all(Array.from({ length: FILES_AT_ONCE }, worker))
}

async function copyIn(bucket, prefix, root) {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  await inParallel(files, (path) => {
    const params = { Bucket: bucket, Key: `${prefix}/${relative(root, path)}`, Body: createReadStream(path) }
    // In parts as soon as a file is larger than one.
    return new Upload({ client: s3, params }).done()
  })
}

async function copyOut(bucket, prefix, root) {
  await inParallel(await listing(bucket, prefix), async ({ Key: key }) => {
    const target = join(root, key.slice(prefix.length + 1))
    await mkdir(dirname(target), { recursive: true })
    const { Body: body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    await pipeline(body, createWriteStream(target))
  })
}

async function list(bucket, prefix) {
  const sizes = (await listing(bucket, prefix)).map(({ Key, Size }) => [Key.slice(prefix.length + 1), Size])
  console.log(JSON.stringify(Object.fromEntries(sizes)))
}

const commands = {
  mb: (bucket) => s3.send(new CreateBucketCommand({ Bucket: bucket })),
  in: copyIn,
  out: copyOut,
  ls: list,
}

const [command, ...rest] = process.argv.slice(2)
if (!Object.hasOwn(commands, command)) throw new Error(`unknown command ${command}`)
await commands[command](...rest)
