import java.io.*;
import java.util.*;
import org.apache.kafka.clients.producer.*;

/**
 * Java's producer, idempotent and with five batches on their way, told by lines what to do: TwoLeaders.java BOOTSTRAP TOPIC.
 *
 * "send PARTITION VALUE" sends without waiting; "acked VALUE OFFSET" or "failed VALUE ERROR" comes when it is known. "leader PARTITION" is
 * answered by "leader NODE", as the producer knows it, "retries PARTITION" by "retries COUNT", of all partitions. The end of the input
 * waits for what is on its way.
 */
public class TwoLeaders {
    static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("linger.ms", "0");
        settings.put("metadata.max.age.ms", "500");
        settings.put("request.timeout.ms", "60000");
        settings.put("delivery.timeout.ms", "90000");
        String topic = arguments[1];
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                int partition = Integer.parseInt(words[1]);
                if (words[0].equals("leader")) {
                    var leader = producer.partitionsFor(topic).stream()
                        .filter(known -> known.partition() == partition && known.leader() != null)
                        .map(known -> known.leader().id()).findFirst();
                    say("leader " + leader.orElse(-1));
                    continue;
                }
                if (words[0].equals("retries")) {
                    double retries = producer.metrics().entrySet().stream()
                        .filter(metric -> metric.getKey().name().equals("record-retry-total") && metric.getKey().group().equals("producer-metrics"))
                        .mapToDouble(metric -> ((Number) metric.getValue().metricValue()).doubleValue()).sum();
                    say("retries " + (long) retries);
                    continue;
                }
                String value = words[2];
                producer.send(new ProducerRecord<>(topic, partition, null, value), (stored, error) ->
                    say(error == null ? "acked " + value + " " + stored.offset() : "failed " + value + " " + error));
            }
        }
    }
}
