// aedes with what it keeps in memory. Prints its port, then serves until it is killed.
const net = require('net')
const aedes = require('aedes')()
const server = net.createServer(aedes.handle)
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
