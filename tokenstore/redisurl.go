package tokenstore

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisTimeout bounds every operation, whatever go-redis does within it (dial, wait for the pool, retry, follow a
// redirect), so that a Redis that is down or hangs costs a caller no more.
const redisTimeout = 450 * time.Millisecond

// redisQuery lists the query keys that a URL may have. Everything else either belongs to bifrost (timeouts, retries) or
// would weaken it (skip_verify, replica_only).
var redisQuery = []string{"addr", "cluster", "master_name", "username", "password", "db", "protocol", "client_name",
	"pool_size", "min_idle_conns", "max_idle_conns", "max_active_conns", "conn_max_idle_time", "conn_max_lifetime"}

// CheckRedisURL says what is wrong with a URL for NewRedis, without connecting: its form, or, unless allowInsecure, that it leads
// to another machine without TLS or without a password. The error names query keys, never a value: a URL contains a password.
func CheckRedisURL(raw string, allowInsecure bool) error {
	_, err := redisOptions(raw, allowInsecure)
	return err
}

func redisOptions(raw string, allowInsecure bool) (*redis.UniversalOptions, error) {
	opts, err := parseRedisURL(raw)
	if err != nil {
		return nil, err
	}
	if err := insecure(opts); err != nil && !allowInsecure {
		return nil, err
	}
	return opts, nil
}

// newRedisClient connects nothing yet.
func newRedisClient(raw string, allowInsecure bool) (redis.UniversalClient, error) {
	opts, err := redisOptions(raw, allowInsecure)
	if err != nil {
		return nil, err
	}
	// A second try within redisTimeout heals a broken connection. It may repeat a command that was executed although its
	// reply was lost, so every script of ours recognises its own earlier success.
	opts.MaxRetries = 1
	opts.MinRetryBackoff, opts.MaxRetryBackoff = 5*time.Millisecond, 20*time.Millisecond
	opts.ContextTimeoutEnabled = true // off by default: contexts would end nothing
	opts.DialTimeout, opts.DialerRetries = 500*time.Millisecond, 1
	opts.ReadTimeout, opts.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	opts.PoolTimeout = 500 * time.Millisecond
	opts.FailingTimeoutSeconds = 1 // a cluster node that comes back is used again at once
	opts.PipelinePoolSize = -1     // one pool is enough
	opts.DisableIdentity = true    // CLIENT SETINFO needs a right of its own
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewUniversalClient(opts), nil
}

// insecure returns an error if whoever is in the network could read or write the store.
func insecure(opts *redis.UniversalOptions) error {
	for _, addr := range opts.Addrs {
		host, _, _ := net.SplitHostPort(addr)
		ip, err := netip.ParseAddr(host)
		switch {
		case err == nil && ip.Unmap().IsLoopback(), strings.EqualFold(host, "localhost"):
		case opts.TLSConfig == nil:
			return errors.New("redis is on another machine and the URL is not rediss://: use TLS, or say store.redis.allow_insecure: true")
		case opts.Password == "":
			return errors.New("redis is on another machine and the URL has no password: set one, or say store.redis.allow_insecure: true")
		}
	}
	return nil
}

func parseRedisURL(raw string) (*redis.UniversalOptions, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the redis URL cannot be parsed") // err quotes it
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "" {
		return nil, errors.New("the redis URL must look like redis://host:port or rediss://host:port")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query of the redis URL cannot be parsed")
	}
	for key := range query {
		if key == "skip_verify" {
			return nil, errors.New("the redis URL says skip_verify: TLS without verification protects nothing")
		}
		if !slices.Contains(redisQuery, key) {
			return nil, fmt.Errorf("the redis URL has the unknown option %q", key)
		}
	}
	cluster := query.Get("cluster")
	if cluster != "" && cluster != "true" && cluster != "false" {
		return nil, errors.New("the redis URL's option cluster is neither true nor false")
	}
	query.Del("cluster")
	u.RawQuery = query.Encode()

	switch {
	case cluster == "true" && query.Has("master_name"):
		return nil, errors.New("the redis URL asks for both cluster and master_name")
	case cluster == "true":
		return parseCluster(u)
	case query.Has("master_name"):
		return parseSentinel(u)
	case query.Has("addr"):
		return nil, errors.New("the redis URL has several addresses: say cluster=true or master_name=NAME")
	default:
		return parseSingle(u)
	}
}

// errRedisOption stands for the parser's own error, which quotes values.
var errRedisOption = errors.New("an option or the database number of the redis URL has no valid value")

func parseSingle(u *url.URL) (*redis.UniversalOptions, error) {
	o, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, errRedisOption
	}
	return &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		Protocol: o.Protocol, ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns,
		MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}

func parseSentinel(u *url.URL) (*redis.UniversalOptions, error) {
	o, err := redis.ParseFailoverURL(u.String())
	if err != nil {
		return nil, errRedisOption
	}
	if o.MasterName == "" {
		return nil, errors.New("the redis URL's option master_name is empty")
	}
	return &redis.UniversalOptions{
		MasterName: o.MasterName, Addrs: o.SentinelAddrs, DB: o.DB, Username: o.Username, Password: o.Password,
		SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword, TLSConfig: o.TLSConfig,
		Protocol: o.Protocol, ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns,
		MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}

func parseCluster(u *url.URL) (*redis.UniversalOptions, error) {
	if strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("the redis URL names a database: a cluster has only one")
	}
	o, err := redis.ParseClusterURL(u.String())
	if err != nil {
		return nil, errRedisOption
	}
	return &redis.UniversalOptions{
		IsClusterMode: true, Addrs: o.Addrs, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		Protocol: o.Protocol, ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns,
		MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}
