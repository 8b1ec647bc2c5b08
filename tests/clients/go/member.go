package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member reads in a group as the library does it by default until it is told to stop. What it has read it writes to a file, a
// line `partition offset value`, before the library may commit that.
//
// Usage: franz-go member LIBRARY BOOTSTRAP OUT GROUP TOPIC
func member(library, bootstrap, out, group, topic string) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	file, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	check(err)
	seeds := split(bootstrap)
	if library == "sarama" {
		memberSarama(ctx, seeds, file, group, topic)
		return
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(seeds...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	check(err)
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			_, err := fmt.Fprintf(file, "%d %d %s\n", record.Partition, record.Offset, record.Value)
			check(err)
		})
	}
}

type handler struct{ file *os.File }

func (handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		if _, err := fmt.Fprintf(h.file, "%d %d %s\n", message.Partition, message.Offset, message.Value); err != nil {
			return err
		}
		session.MarkMessage(message, "")
	}
	return nil
}

func memberSarama(ctx context.Context, seeds []string, file *os.File, group, topic string) {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	client, err := sarama.NewConsumerGroup(seeds, group, config)
	check(err)
	defer client.Close()
	for ctx.Err() == nil {
		// It returns at each rebalance, and where its coordinator is gone.
		if err := client.Consume(ctx, []string{topic}, handler{file}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
