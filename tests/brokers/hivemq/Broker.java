import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.parameter.*;
import com.hivemq.extension.sdk.api.services.Services;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.*;

/**
 * HiveMQ CE for everybody, with its defaults but for one. In: an empty folder, and how many messages it keeps for a
 * client that is away (its default is 1,000). Out: its port, as a line.
 */
public class Broker {
    public static void main(String[] arguments) throws Exception {
        PrintStream answer = System.out;
        // its log is not part of the answer
        System.setOut(System.err);
        int port;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            port = free.getLocalPort();
        }
        Path folder = Path.of(arguments[0]);
        for (String name : new String[] {"conf", "data", "extensions"}) {
            Files.createDirectories(folder.resolve(name));
        }
        Files.writeString(folder.resolve("conf/config.xml"),
            "<hivemq><listeners><tcp-listener><port>" + port + "</port><bind-address>127.0.0.1</bind-address>"
            + "</tcp-listener></listeners><mqtt><queued-messages><max-queue-size>" + arguments[1]
            + "</max-queue-size></queued-messages></mqtt><anonymous-usage-statistics><enabled>false</enabled>"
            + "</anonymous-usage-statistics></hivemq>");
        EmbeddedExtension everybody = EmbeddedExtension.builder()
            .withId("everybody").withName("everybody").withVersion("1").withAuthor("tests").withPriority(0)
            .withStartPriority(0).withExtensionMain(new ExtensionMain() {
                public void extensionStart(ExtensionStartInput in, ExtensionStartOutput out) {
                    Services.securityRegistry().setAuthenticatorProvider(provider ->
                        (com.hivemq.extension.sdk.api.auth.SimpleAuthenticator)
                            (input, output) -> output.authenticateSuccessfully());
                }
                public void extensionStop(ExtensionStopInput in, ExtensionStopOutput out) {}
            }).build();
        EmbeddedHiveMQ.builder().withConfigurationFolder(folder.resolve("conf"))
            .withDataFolder(folder.resolve("data")).withExtensionsFolder(folder.resolve("extensions"))
            .withEmbeddedExtension(everybody).build().start().join();
        answer.println(port);
        answer.flush();
    }
}
