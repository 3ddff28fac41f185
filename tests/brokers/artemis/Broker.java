import java.io.File;
import org.apache.activemq.artemis.core.config.impl.ConfigurationImpl;
import org.apache.activemq.artemis.core.remoting.impl.netty.NettyAcceptor;
import org.apache.activemq.artemis.core.server.embedded.EmbeddedActiveMQ;

/** Artemis with its defaults, for everybody. In: an empty folder. Out: its port, as a line. */
public class Broker {
    public static void main(String[] arguments) throws Exception {
        ConfigurationImpl configuration = new ConfigurationImpl();
        configuration.setSecurityEnabled(false);
        configuration.setPersistenceEnabled(true);
        configuration.setBrokerInstance(new File(arguments[0]));
        configuration.addAcceptorConfiguration("mqtt", "tcp://127.0.0.1:0?protocols=MQTT");
        EmbeddedActiveMQ broker = new EmbeddedActiveMQ();
        broker.setConfiguration(configuration);
        broker.start();
        NettyAcceptor acceptor =
            (NettyAcceptor) broker.getActiveMQServer().getRemotingService().getAcceptor("mqtt");
        System.out.println(acceptor.getActualPort());
        System.out.flush();
    }
}
