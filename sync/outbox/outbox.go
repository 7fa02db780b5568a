// Package outbox keeps streams: named, ordered, bounded queues of records for the cloud, on the gateway's store.
package outbox
