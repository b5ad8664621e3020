// Package e2e runs the bifrost binary against what was written elsewhere: a certified OAuth server, a real client, a real
// browser. It holds tests only. They run node scripts beside them, whose packages `make test` installs.
package e2e
