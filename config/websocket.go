package config

import "time"

// readWebSocket reads what bounds an integration's tunnels.
func (in *Integration) readWebSocket(timeouts, limits *object) {
	in.WebSocketIdle, in.WebSocketLifetime, in.WebSockets = 10*time.Minute, 12*time.Hour, 1000
	idle, lifetime, most := timeouts.at("websocket_idle"), timeouts.at("websocket_lifetime"), limits.at("websockets")
	set(idle, &in.WebSocketIdle, span)
	set(lifetime, &in.WebSocketLifetime, span)
	set(most, &in.WebSockets, count)
	for _, at := range []node{idle, lifetime, most} {
		if at.given() && !in.WebSocket {
			at.problem("bounds WebSockets, which do not pass: add websocket: true, or remove it")
		}
	}
}
