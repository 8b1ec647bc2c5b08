import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads a topic of six partitions by assignment and prints MB/s: ConsumerPerformance without a consumer group. */
public class Consume {
    public static void main(String[] arguments) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        long wanted = Long.parseLong(arguments[2]);
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
            List<TopicPartition> partitions =
                IntStream.range(0, 6).mapToObj(each -> new TopicPartition(arguments[1], each)).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long begin = System.nanoTime(), read = 0, size = 0;
            while (read < wanted) {
                if (System.nanoTime() - begin > 60_000_000_000L) {
                    throw new IllegalStateException("only " + read + " records of " + wanted);
                }
                for (var record : consumer.poll(Duration.ofMillis(100))) {
                    read++;
                    size += record.value().length;
                }
            }
            System.out.println(size / 1e6 / ((System.nanoTime() - begin) / 1e9));
        }
    }
}
