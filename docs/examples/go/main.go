// Register a user, wait for the outcome, and find the user by a fragment of the email address.
//
//	go run . USER EMAIL [COMMAND_ID]
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const viewTimeout = 30 * time.Second

var (
	servers       = strings.Split(os.Getenv("CQRS_BOOTSTRAP_SERVERS"), ",")
	elasticsearch = strings.Split(os.Getenv("CQRS_ELASTICSEARCH_URL"), ",")[0]
	namespace     = os.Getenv("CQRS_NAMESPACE")
	commands      = namespace + "users.commands.v1"
	outcomes      = namespace + "users.outcomes.v1"
)

type registerUser struct {
	Type               string `json:"type"`
	ID                 string `json:"id"`
	AggregateID        string `json:"aggregateId"`
	Email              string `json:"email"`
	FirstName          string `json:"firstName"`
	LastName           string `json:"lastName"`
	RegistrationSource string `json:"registrationSource"`
}

type outcome struct {
	CommandID string   `json:"commandId"`
	Status    string   `json:"status"`
	Sequence  int64    `json:"sequence"` // if it is accepted
	Code      string   `json:"code"`     // if it is not
	Reason    string   `json:"reason"`
	Of        *outcome `json:"of"` // of a duplicate: the first reply
}

type user struct {
	ID      string `json:"id"`
	Email   string `json:"email"`
	Version int64  `json:"version"`
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := registerUser{
		Type: "RegisterUser", ID: uuid.NewString(), AggregateID: args[0], Email: args[1],
		FirstName: "Anna", LastName: "Muster", RegistrationSource: "web",
	}
	if len(args) > 2 {
		command.ID = args[2]
	}
	fmt.Println("sent: RegisterUser", command.ID)
	decided, err := dispatch(ctx, command)
	if err != nil {
		return err
	}
	again := ""
	if decided.Status == "duplicate" {
		again, decided = "duplicate, first ", decided.Of
	}
	if decided.Status != "accepted" {
		return fmt.Errorf("%s%s: %s (%s)", again, decided.Status, decided.Reason, decided.Code)
	}
	fmt.Printf("%saccepted: %s is at version %d\n", again, command.AggregateID, decided.Sequence)

	fragment := strings.ToUpper(command.Email[1:])
	found, err := find(ctx, fragment, command.AggregateID, decided.Sequence)
	if err != nil {
		return err
	}
	fmt.Printf("found: %s %s version %d\n", found.ID, found.Email, found.Version)
	return nil
}

// dispatch sends a command until there is an outcome: its id makes it safe to send it again.
func dispatch(ctx context.Context, command registerUser) (*outcome, error) {
	timeout, err := strconv.ParseFloat(cmp.Or(os.Getenv("CQRS_OUTCOME_TIMEOUT"), "30"), 64)
	if err != nil {
		return nil, fmt.Errorf("CQRS_OUTCOME_TIMEOUT: %w", err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(servers...),
		// murmur2 of the key, as in Java's client; not every client for Go has it as the default.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	value, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{Topic: commands, Key: []byte(command.AggregateID), Value: value}

	// Before it is sent: the outcome is later, and in the command's partition.
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, outcomes)
	if err != nil {
		return nil, err
	}
	for reads := false; ; reads = true {
		sent, err := client.ProduceSync(ctx, record).First()
		if err != nil {
			return nil, err
		}
		if !reads {
			end, _ := ends.Lookup(outcomes, sent.Partition)
			client.AddConsumePartitions(map[string]map[int32]kgo.Offset{
				outcomes: {sent.Partition: kgo.NewOffset().At(end.Offset)},
			})
		}
		decided, err := outcomeOf(ctx, command.ID, client, time.Duration(timeout*float64(time.Second)))
		if decided != nil || err != nil {
			return decided, err
		}
		fmt.Fprintln(os.Stderr, "no outcome yet: sending it again")
	}
}

// outcomeOf returns nil if the timeout is over.
func outcomeOf(ctx context.Context, id string, client *kgo.Client, timeout time.Duration) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); errors.Is(err, context.DeadlineExceeded) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		for _, record := range fetches.Records() {
			var decided outcome
			if err := json.Unmarshal(record.Value, &decided); err != nil {
				return nil, err
			}
			// A parked command gets its final outcome later.
			if decided.CommandID == id && decided.Status != "parked" {
				return &decided, nil
			}
		}
	}
}

// find searches until the user is found with this write: without the token's wait, by polling.
func find(ctx context.Context, fragment, id string, version int64) (*user, error) {
	for end := time.Now().Add(viewTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		users, err := search(ctx, fragment)
		if err != nil {
			return nil, err
		}
		for _, found := range users {
			if found.ID == id && found.Version >= version {
				return &found, nil
			}
		}
	}
	return nil, fmt.Errorf("the view does not show version %d of %s yet", version, id)
}

func search(ctx context.Context, fragment string) ([]user, error) {
	body, err := json.Marshal(map[string]any{
		"query": fragmentQuery(fragment),
		"sort":  []string{"registeredAt", "id"},
	})
	if err != nil {
		return nil, err
	}
	url := elasticsearch + "/" + namespace + "user-views/_search?ignore_unavailable=true"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(response.Body)
		return nil, errors.New(string(reason))
	}
	var answer struct {
		Hits struct {
			Hits []struct {
				Source user `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	var users []user
	for _, hit := range answer.Hits.Hits {
		users = append(users, hit.Source)
	}
	return users, nil
}

// fragmentQuery is explained in docs/search.md. Values are case-folded; for ASCII that is lower case.
func fragmentQuery(fragment string) map[string]any {
	var codes []string
	for _, character := range strings.ToLower(fragment) {
		if character >= 'a' && character <= 'z' || character >= '0' && character <= '9' {
			codes = append(codes, string(character))
		} else {
			codes = append(codes, fmt.Sprintf("X%xZ", character))
		}
	}
	if len(codes) < 3 {
		return map[string]any{"term": map[string]string{"emailFragments.short": strings.Join(codes, "")}}
	}
	last := len(codes) - 3
	var words []string
	for i := range last + 1 {
		if i%3 == 0 || i == last {
			words = append(words, strings.Join(codes[i:i+3], ""))
		} else {
			words = append(words, "H")
		}
	}
	phrase := map[string]any{"match_phrase": map[string]string{"emailFragments": strings.Join(words, " ")}}
	return map[string]any{"constant_score": map[string]any{"filter": phrase}}
}
