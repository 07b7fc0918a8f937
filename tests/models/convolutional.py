"""ResNets, MobileNets and U-Nets."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, normal

IMAGE = (8, 8, 3)


# ResNets


class BasicBlock(nn.Module):
    channels: int
    strides: int = 1

    @nn.compact
    def __call__(self, x, train: bool = False):
        def norm(y):
            return nn.BatchNorm(use_running_average=not train)(y)

        y = nn.relu(norm(nn.Conv(self.channels, (3, 3), self.strides, use_bias=False)(x)))
        y = norm(nn.Conv(self.channels, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = norm(nn.Conv(self.channels, (1, 1), self.strides, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = BasicBlock(4)(x, train)
        x = BasicBlock(6, strides=2)(x, train)
        return nn.Dense(3)(x.mean((1, 2)))


@case("resnet", "linen", layer="Conv_0", relu=True, piecewise=True)
def resnet_linen():
    return from_linen(ResNet(), normal(0, *IMAGE), batched=True)


class Bottleneck(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(2, (1, 1))(x)))
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(2, (3, 3))(y)))
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(x.shape[-1], (1, 1))(y))
        return nn.relu(x + y)


class BottleneckResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3), use_bias=False)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = Bottleneck()(Bottleneck()(x))
        return nn.Dense(3)(x.mean((1, 2)))


@case("resnet", "linen", layer="Conv_0", relu=True, piecewise=True)
def bottleneck_resnet_linen():
    return from_linen(BottleneckResNet(), normal(1, *IMAGE), batched=True)


class PreactivationBlock(nnx.Module):
    def __init__(self, channels, rngs):
        self.norm1 = nnx.BatchNorm(channels, rngs=rngs)
        self.conv1 = nnx.Conv(channels, channels, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(channels, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), use_bias=False, rngs=rngs)

    def __call__(self, x):
        y = self.conv1(nnx.relu(self.norm1(x)))
        return x + self.conv2(nnx.relu(self.norm2(y)))


class PreactivationResNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([PreactivationBlock(4, rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(nnx.relu(self.norm(x)).mean((1, 2)))


@case("resnet", "nnx", layer="stem", relu=True, piecewise=True)
def preactivation_resnet_nnx():
    return from_nnx(PreactivationResNet(nnx.Rngs(0)), normal(2, *IMAGE), batched=True)


class ConvNeXtBlock(nnx.Module):
    def __init__(self, channels, rngs):
        self.depthwise = nnx.Conv(channels, channels, (3, 3), feature_group_count=channels, rngs=rngs)
        self.norm = nnx.LayerNorm(channels, rngs=rngs)
        self.up = nnx.Linear(channels, 2 * channels, rngs=rngs)
        self.down = nnx.Linear(2 * channels, channels, rngs=rngs)
        self.layer_scale = nnx.Param(jnp.full(channels, 0.3))

    def __call__(self, x):
        return x + self.layer_scale[...] * self.down(nnx.gelu(self.up(self.norm(self.depthwise(x)))))


class ConvNeXt(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (2, 2), (2, 2), rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.blocks = nnx.List([ConvNeXtBlock(4, rngs) for _ in range(2)])
        self.last = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x.mean((1, 2))))


@case("resnet", "nnx", layer="stem", smooth=True)
def convnext_nnx():
    return from_nnx(ConvNeXt(nnx.Rngs(1)), normal(3, *IMAGE), batched=True)


class GroupNormBlock(eqx.Module):
    convs: list
    norms: list

    def __init__(self, channels, key):
        keys = jax.random.split(key)
        self.convs = [eqx.nn.Conv2d(channels, channels, 3, padding=1, key=k) for k in keys]
        self.norms = [eqx.nn.GroupNorm(2, channels) for _ in keys]

    def __call__(self, x):
        y = jax.nn.relu(self.norms[0](self.convs[0](x)))
        return jax.nn.relu(x + self.norms[1](self.convs[1](y)))


class GroupNormResNet(eqx.Module):
    stem: eqx.nn.Conv2d
    blocks: list
    head: eqx.nn.Linear

    def __init__(self, key):
        first, *middle, last = jax.random.split(key, 4)
        self.stem = eqx.nn.Conv2d(3, 4, 3, stride=2, padding=1, key=first)
        self.blocks = [GroupNormBlock(4, k) for k in middle]
        self.head = eqx.nn.Linear(4, 3, key=last)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


@case("resnet", "equinox", layer="stem", relu=True)
def groupnorm_resnet_equinox():
    return from_equinox(GroupNormResNet(jax.random.key(2)), normal(4, 3, 8, 8))


# MobileNets


class Separable(nn.Module):
    channels: int
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        n = x.shape[-1]
        x = nn.Conv(n, (3, 3), self.strides, feature_group_count=n, use_bias=False)(x)
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(x))
        x = nn.Conv(self.channels, (1, 1), use_bias=False)(x)
        return nn.relu6(nn.BatchNorm(use_running_average=True)(x))


class MobileNetV1(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), 2, use_bias=False)(x)))
        x = Separable(6)(x)
        x = Separable(6, strides=2)(x)
        return nn.Dense(3)(x.mean((1, 2)))


@case("mobilenet", "linen", layer="Conv_0", piecewise=True)
def mobilenet_v1_linen():
    return from_linen(MobileNetV1(), normal(5, *IMAGE), batched=True)


class InvertedResidual(nnx.Module):
    def __init__(self, n, rngs):
        wide = 2 * n
        self.expand = nnx.Conv(n, wide, (1, 1), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(wide, rngs=rngs)
        self.depthwise = nnx.Conv(wide, wide, (3, 3), feature_group_count=wide, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(wide, rngs=rngs)
        self.project = nnx.Conv(wide, n, (1, 1), use_bias=False, rngs=rngs)
        self.norm3 = nnx.BatchNorm(n, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu6(self.norm1(self.expand(x)))
        y = nnx.relu6(self.norm2(self.depthwise(y)))
        return x + self.norm3(self.project(y))


class MobileNetV2(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), (2, 2), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([InvertedResidual(4, rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


@case("mobilenet", "nnx", layer="stem", piecewise=True)
def mobilenet_v2_nnx():
    return from_nnx(MobileNetV2(nnx.Rngs(2)), normal(6, *IMAGE), batched=True)


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x):
        s = x.mean((1, 2), keepdims=True)
        s = nn.relu(nn.Conv(2, (1, 1))(s))
        return x * nn.hard_sigmoid(nn.Conv(x.shape[-1], (1, 1))(s))


class MobileNetV3(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.hard_swish(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), 2, use_bias=False)(x)))
        y = nn.hard_swish(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (1, 1), use_bias=False)(x)))
        y = nn.Conv(8, (3, 3), feature_group_count=8, use_bias=False)(y)
        y = SqueezeExcite()(nn.hard_swish(nn.BatchNorm(use_running_average=True)(y)))
        x = x + nn.BatchNorm(use_running_average=True)(nn.Conv(4, (1, 1), use_bias=False)(y))
        return nn.Dense(3)(nn.hard_swish(nn.Dense(6)(x.mean((1, 2)))))


@case("mobilenet", "linen", layer="Conv_0", relu=True)
def mobilenet_v3_linen():
    return from_linen(MobileNetV3(), normal(7, *IMAGE), batched=True)


class EfficientNet(eqx.Module):
    stem: eqx.nn.Conv2d
    depthwise: eqx.nn.Conv2d
    norms: list
    squeeze: eqx.nn.Linear
    excite: eqx.nn.Linear
    project: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        k = jax.random.split(key, 6)
        self.stem = eqx.nn.Conv2d(3, 6, 3, stride=2, padding=1, use_bias=False, key=k[0])
        self.depthwise = eqx.nn.Conv2d(6, 6, 3, padding=1, groups=6, use_bias=False, key=k[1])
        self.norms = [eqx.nn.BatchNorm(6, "batch", mode="batch") for _ in range(3)]
        self.squeeze = eqx.nn.Linear(6, 2, key=k[2])
        self.excite = eqx.nn.Linear(2, 6, key=k[3])
        self.project = eqx.nn.Conv2d(6, 6, 1, use_bias=False, key=k[4])
        self.head = eqx.nn.Linear(6, 3, key=k[5])

    def __call__(self, x, state):
        x, state = self.norms[0](self.stem(x), state)
        x = jax.nn.silu(x)
        y, state = self.norms[1](self.depthwise(x), state)
        y = jax.nn.silu(y)
        s = jax.nn.sigmoid(self.excite(jax.nn.silu(self.squeeze(y.mean((1, 2))))))
        y, state = self.norms[2](self.project(y * s[:, None, None]), state)
        return self.head((x + y).mean((1, 2))), state


@case("mobilenet", "equinox", layer="stem", smooth=True)
def efficientnet_equinox():
    module, state = eqx.nn.make_with_state(EfficientNet)(jax.random.key(3))
    return from_equinox(module, normal(8, 3, 8, 8), state)


class ShuffleUnit(nnx.Module):
    def __init__(self, n, rngs):
        half = n // 2
        self.point = nnx.Conv(half, half, (1, 1), rngs=rngs)
        self.depthwise = nnx.Conv(half, half, (3, 3), feature_group_count=half, rngs=rngs)
        self.norm = nnx.BatchNorm(half, rngs=rngs)

    def __call__(self, x):
        left, right = jnp.split(x, 2, axis=-1)
        right = self.norm(self.depthwise(nnx.relu(self.point(right))))
        y = jnp.concatenate([left, nnx.relu(right)], axis=-1)
        return y.reshape(*y.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(y.shape)


class ShuffleNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.units = nnx.List([ShuffleUnit(8, rngs) for _ in range(3)])
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(self.stem(x), (2, 2), (2, 2))
        for unit in self.units:
            x = unit(x)
        return self.head(x.mean((1, 2)))


@case("mobilenet", "nnx", layer="stem", relu=True, piecewise=True)
def shufflenet_nnx():
    return from_nnx(ShuffleNet(nnx.Rngs(3)), normal(9, *IMAGE), batched=True)


# U-Nets


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        first = nn.relu(nn.Conv(4, (3, 3))(x))
        second = nn.relu(nn.Conv(6, (3, 3))(nn.max_pool(first, (2, 2), (2, 2))))
        y = nn.relu(nn.Conv(6, (3, 3))(nn.max_pool(second, (2, 2), (2, 2))))
        y = jnp.concatenate([second, nn.ConvTranspose(6, (2, 2), (2, 2))(y)], axis=-1)
        y = nn.ConvTranspose(4, (2, 2), (2, 2))(nn.relu(nn.Conv(6, (3, 3))(y)))
        y = nn.relu(nn.Conv(4, (3, 3))(jnp.concatenate([first, y], axis=-1)))
        return nn.Conv(2, (1, 1))(y)


@case("unet", "linen", layer="Conv_0", relu=True, piecewise=True)
def unet_linen():
    return from_linen(UNet(), normal(10, *IMAGE), batched=True)


class SignalUNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        first = nn.leaky_relu(nn.Conv(4, (5,))(x))
        second = nn.leaky_relu(nn.Conv(6, (4,), 2)(first))
        y = nn.leaky_relu(nn.Conv(6, (4,), 2)(second))
        y = nn.leaky_relu(nn.ConvTranspose(6, (4,), (2,))(y))
        y = nn.leaky_relu(nn.ConvTranspose(4, (4,), (2,))(jnp.concatenate([y, second], -1)))
        return nn.Conv(2, (1,))(jnp.concatenate([y, first], -1))


@case("unet", "linen", layer="Conv_0", piecewise=True)
def signal_unet_linen():
    return from_linen(SignalUNet(), normal(11, 24, 2))


class DiffusionBlock(nnx.Module):
    def __init__(self, n_in, n_out, rngs):
        self.norm = nnx.GroupNorm(n_in, num_groups=2, rngs=rngs)
        self.conv = nnx.Conv(n_in, n_out, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.conv(nnx.silu(self.norm(x)))


class DiffusionUNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.down = DiffusionBlock(4, 4, rngs)
        self.middle = DiffusionBlock(4, 4, rngs)
        self.up = DiffusionBlock(8, 2, rngs)

    def __call__(self, x):
        first = self.stem(x)
        y = self.middle(nnx.avg_pool(self.down(first), (2, 2), (2, 2)))
        y = jax.image.resize(y, first.shape, "bilinear")
        return self.up(jnp.concatenate([first, y], axis=-1))


@case("unet", "nnx", layer="stem", smooth=True)
def diffusion_unet_nnx():
    return from_nnx(DiffusionUNet(nnx.Rngs(4)), normal(12, *IMAGE), batched=True)


class AttentionUNet(nnx.Module):
    """A U-Net whose skip connection is gated by the coarser maps."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.down = nnx.Conv(4, 4, (3, 3), (2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.of_skip = nnx.Conv(4, 2, (1, 1), rngs=rngs)
        self.of_gate = nnx.Conv(4, 2, (1, 1), rngs=rngs)
        self.gate = nnx.Conv(2, 1, (1, 1), rngs=rngs)
        self.last = nnx.Conv(8, 2, (3, 3), rngs=rngs)

    def __call__(self, x):
        skip = nnx.relu(self.stem(x))
        y = nnx.relu(self.norm(self.down(skip)))
        y = jax.image.resize(y, skip.shape, "nearest")
        gate = nnx.sigmoid(self.gate(nnx.relu(self.of_skip(skip) + self.of_gate(y))))
        return self.last(jnp.concatenate([skip * gate, y], axis=-1))


@case("unet", "nnx", layer="stem", relu=True)
def attention_unet_nnx():
    return from_nnx(AttentionUNet(nnx.Rngs(5)), normal(13, *IMAGE), batched=True)


class EquinoxUNet(eqx.Module):
    down: list
    up: eqx.nn.ConvTranspose2d
    last: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d

    def __init__(self, key):
        k = jax.random.split(key, 4)
        self.down = [
            eqx.nn.Conv2d(3, 4, 3, padding=1, key=k[0]),
            eqx.nn.Conv2d(4, 6, 3, padding=1, key=k[1]),
        ]
        self.up = eqx.nn.ConvTranspose2d(6, 4, 2, stride=2, key=k[2])
        self.last = eqx.nn.Conv2d(8, 2, 3, padding=1, key=k[3])
        self.pool = eqx.nn.MaxPool2d(2, 2)

    def __call__(self, x):
        first = jax.nn.elu(self.down[0](x))
        y = jax.nn.elu(self.down[1](self.pool(first)))
        return self.last(jnp.concatenate([first, self.up(y)]))


@case("unet", "equinox", layer="down/0")
def unet_equinox():
    return from_equinox(EquinoxUNet(jax.random.key(4)), normal(14, 3, 8, 8))
