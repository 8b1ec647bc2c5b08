// Produces with franz-go as it comes (idempotent, acks=all, snappy) and reads the records back by partition assignment,
// through incremental fetch sessions and topic ids.
//
// Usage: go run . BOOTSTRAP TOPIC RECORDS, or as a member of a group (member.go).
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if len(os.Args) == 7 && os.Args[1] == "member" {
		member(os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6])
		return
	}
	if len(os.Args) != 4 {
		fail("usage: go run . BOOTSTRAP TOPIC RECORDS")
	}
	records, err := strconv.Atoi(os.Args[3])
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first := produce(ctx, os.Args[1], os.Args[2], records)
	consume(ctx, os.Args[1], os.Args[2], first, records)
	fmt.Printf("{\"records\": %d}\n", records)
}

// produce returns the offset of the first record.
func produce(ctx context.Context, bootstrap, topic string, records int) int64 {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.AllowAutoTopicCreation(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	check(err)
	defer client.Close()
	first := int64(-1)
	for number := 0; number < records; number++ {
		record := &kgo.Record{Topic: topic, Value: value(number), Headers: []kgo.RecordHeader{{Key: "n", Value: value(number)}}}
		client.Produce(ctx, record, func(stored *kgo.Record, err error) {
			check(err)
			if first < 0 {
				first = stored.Offset
			}
		})
	}
	check(client.Flush(ctx))
	return first
}

func consume(ctx context.Context, bootstrap, topic string, first int64, records int) {
	from := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(first)}}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(from))
	check(err)
	defer client.Close()
	for next := 0; next < records; {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(_ string, _ int32, err error) { check(err) })
		fetches.EachRecord(func(record *kgo.Record) {
			if record.Offset != first+int64(next) || string(record.Value) != string(value(next)) {
				fail(fmt.Sprintf("offset %d holds %q", record.Offset, record.Value))
			}
			next++
		})
	}
}

func split(bootstrap string) []string { return strings.Split(bootstrap, ",") }

func value(number int) []byte { return []byte(fmt.Sprintf("record %d", number)) }

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
