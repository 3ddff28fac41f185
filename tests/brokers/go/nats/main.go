// A NATS server that speaks MQTT, with JetStream in the folder that is named. Prints its port, then serves until it is
// killed.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	options := &server.Options{
		ServerName: "peer", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: os.Args[1], NoSigs: true,
	}
	options.MQTT.Host = "127.0.0.1"
	options.MQTT.Port = free()
	peer, err := server.NewServer(options)
	if err != nil {
		log.Fatal(err)
	}
	peer.Start()
	if !peer.ReadyForConnections(10 * time.Second) {
		log.Fatal("it does not start")
	}
	fmt.Println(options.MQTT.Port)
	select {}
}

// The server takes no port of the system's choice for MQTT.
func free() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
