"""Graph networks. A graph is a pytree; its edges are integers, which are held."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, normal

NODES, FEATURES, WIDTH = 7, 3, 6
SENDERS = [0, 1, 2, 3, 4, 5, 6, 0, 2, 5, 3, 1]
RECEIVERS = [1, 2, 3, 4, 5, 6, 0, 3, 0, 2, 6, 5]


def graph_of(seed, edge_features=False):
    graph = {
        "nodes": normal(seed, NODES, FEATURES),
        "senders": jnp.array(SENDERS),
        "receivers": jnp.array(RECEIVERS),
    }
    return graph | ({"edges": normal(seed + 1, len(SENDERS), 2)} if edge_features else {})


class DenseGCN(nn.Module):
    """Two graph convolutions by a matrix of the graph, normalized on both sides."""

    @nn.compact
    def __call__(self, x):
        matrix = jnp.eye(NODES) + jnp.zeros((NODES, NODES)).at[jnp.array(RECEIVERS), jnp.array(SENDERS)].set(
            1
        )
        matrix = matrix / jnp.sqrt(matrix.sum(0) * matrix.sum(1)[:, None])
        x = nn.relu(matrix @ nn.Dense(WIDTH)(x))
        x = nn.relu(matrix @ nn.Dense(WIDTH)(x))
        return nn.Dense(3)(x.mean(0))


@case("graph", "linen", layer="Dense_0", relu=True, piecewise=True)
def dense_gcn_linen():
    return from_linen(DenseGCN(), normal(70, NODES, FEATURES))


class GCN(eqx.Module):
    layers: list
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Linear(FEATURES, WIDTH, use_bias=False, key=a),
            eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=b),
        ]
        self.head = eqx.nn.Linear(WIDTH, 3, use_bias=False, key=c)

    def __call__(self, graph):
        x, senders, receivers = graph["nodes"], graph["senders"], graph["receivers"]
        degree = 1 + jax.ops.segment_sum(jnp.ones(len(senders)), receivers, NODES)
        weight = jax.lax.rsqrt(degree[senders] * degree[receivers])[:, None]
        for layer in self.layers:
            y = jax.vmap(layer)(x)
            x = y / degree[:, None] + jax.ops.segment_sum(weight * y[senders], receivers, NODES)
            x = jax.nn.relu(x)
        return self.head(x.mean(0))


@case("graph", "equinox", layer="layers/0", relu=True, piecewise=True, conserves=True)
def gcn_equinox():
    return from_equinox(GCN(jax.random.key(11)), graph_of(71))


class GAT(nnx.Module):
    """Attention over the edges into a node: a softmax by segments."""

    def __init__(self, rngs):
        self.project = nnx.Linear(FEATURES, WIDTH, rngs=rngs)
        self.of_sender, self.of_receiver = (nnx.Linear(WIDTH, 1, rngs=rngs) for _ in range(2))
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, graph):
        senders, receivers = graph["senders"], graph["receivers"]
        x = self.project(graph["nodes"])
        score = nnx.leaky_relu(self.of_sender(x)[senders] + self.of_receiver(x)[receivers], 0.2)
        score = score - jax.ops.segment_max(score, receivers, NODES)[receivers]
        weight = jnp.exp(score)
        weight = weight / jax.ops.segment_sum(weight, receivers, NODES)[receivers]
        x = x + nnx.elu(jax.ops.segment_sum(weight * x[senders], receivers, NODES))
        return self.head(x.mean(0))


@case("graph", "nnx", layer="project")
def gat_nnx():
    return from_nnx(GAT(nnx.Rngs(12)), graph_of(72))


class GraphSAGE(nn.Module):
    """Neighbors are pooled by their maximum; node vectors are divided by their length."""

    @nn.compact
    def __call__(self, graph):
        x = nn.Dense(WIDTH)(graph["nodes"])
        pooled = nn.relu(nn.Dense(WIDTH)(x))[graph["senders"]]
        pooled = jax.ops.segment_max(pooled, graph["receivers"], NODES)
        x = nn.relu(nn.Dense(WIDTH)(jnp.concatenate([x, pooled], axis=-1)))
        x = x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)
        return nn.Dense(3)(x.mean(0))


@case("graph", "linen", layer="Dense_0", relu=True)
def sage_linen():
    return from_linen(GraphSAGE(), graph_of(73))


class MessagePassing(eqx.Module):
    """Messages of two nodes and their edge; updates by a GRU; a readout of sums."""

    message: eqx.nn.MLP
    update: eqx.nn.GRUCell
    inward: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c, d = jax.random.split(key, 4)
        self.message = eqx.nn.MLP(2 * WIDTH + 2, WIDTH, 8, 1, key=a)
        self.update = eqx.nn.GRUCell(WIDTH, WIDTH, key=b)
        self.inward, self.head = eqx.nn.Linear(FEATURES, WIDTH, key=c), eqx.nn.Linear(WIDTH, 3, key=d)

    def __call__(self, graph):
        x = jax.vmap(self.inward)(graph["nodes"])
        for _ in range(2):
            pairs = (x[graph["senders"]], x[graph["receivers"]], graph["edges"])
            messages = jax.vmap(self.message)(jnp.concatenate(pairs, axis=-1))
            messages = jnp.zeros_like(x).at[graph["receivers"]].add(messages)
            x = jax.vmap(self.update)(messages, x)
        return self.head(x.sum(0))


@case("graph", "equinox", relu=True)
def message_passing_equinox():
    return from_equinox(MessagePassing(jax.random.key(12)), graph_of(74, edge_features=True))


class GIN(nnx.Module):
    """Sums over neighbors, a network for each node, and a readout of every layer."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(FEATURES, WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs, use_running_average=True)
        self.epsilon = nnx.Param(jnp.asarray(0.2))
        self.head = nnx.Linear(FEATURES + WIDTH, 3, rngs=rngs)

    def __call__(self, graph):
        x = graph["nodes"]
        neighbors = jnp.zeros_like(x).at[graph["receivers"]].add(x[graph["senders"]])
        y = self.second(nnx.relu(self.norm(self.first((1 + self.epsilon[...]) * x + neighbors))))
        return self.head(jnp.concatenate([x, nnx.relu(y)], axis=-1).sum(0))


@case("graph", "nnx", relu=True, piecewise=True)
def gin_nnx():
    return from_nnx(GIN(nnx.Rngs(13)), graph_of(76))
