//! Calls over links: what arrives, what bounds them, what breaks them.

mod support;

use bytes::Bytes;
use holdfast_model::limits::SHARD_SIZE_MAX;
use holdfast_peer::Method;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_every_size_come_back_as_they_went() {
    let pair = pair().await;
    let sizes = [
        1,
        15,
        4095,
        4096,
        4097,
        16_383,
        65_536,
        65_552,
        100_000,
        262_144,
        SHARD_SIZE_MAX - 1,
        SHARD_SIZE_MAX,
    ];
    for (seed, size) in sizes.into_iter().enumerate() {
        let mut shard = pair.pool.acquire(size).await;
        fill(&mut shard, seed as u64);
        let expected = shard.to_vec();
        let name = Bytes::from(size.to_string());
        let put = pair
            .client
            .call(SERVER, Method::ShardPut, name.clone(), Some(shard.into()), TIMEOUT)
            .await
            .unwrap();
        assert!(put.body.is_empty() && put.payload.is_none());
        let answer = pair.client.call(SERVER, Method::ShardGet, name, None, TIMEOUT).await.unwrap();
        assert_eq!(&*answer.payload.unwrap(), expected.as_slice(), "{size} bytes");
    }
}
